"""What our code can say to people, read from its source: every alternative of a sentence, with samples for its values.

A sentence is an f-string in most cases; its parts may be chosen (``a if b else c``), joined, counted (``number_of``) or
said by other functions. They are followed through names, attributes and calls as far as texts go. What is no text of
ours (a path, a name, a caption) becomes a sample that no translation would hold, such as ``Δ1``; a number, 71.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("data", "diffusion", "files", "graph", "hosts", "models", "nodes", "runs", "server", "training")
MOST = 48
"""Of more combinations each part is shown at least once, beside the first of the others."""
DEEPEST = 12
COUNTING = {"len", "sum", "round", "int", "float", "ceil", "max", "min", "abs"}
SPELT = {"str", "repr", "printable", "shorten", "list", "tuple", "sorted", "set", "reversed"}
"""Functions that give back the text, or the texts, that they are given."""
METHODS = {"strip", "lower", "upper", "lstrip", "rstrip", "removeprefix", "removesuffix", "splitlines"}

NAMED = {"title", "DISPLAY_NAME", "CATEGORY"}
"""What classes call themselves, in every language."""


class Elements(list):  # type: ignore[type-arg]
    """The texts that a list may hold."""


@dataclass(frozen=True)
class Sample:
    """A value that is carried over as it is; it gets its number when the sentence is whole."""

    number: bool = False
    quoted: bool = False


Text = tuple[str | Sample, ...]
NUMBER, NAME = Sample(number=True), Sample()


@dataclass
class Module:
    name: str
    """Its path below the root."""
    tree: ast.Module
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Scope:
    """A function that is looked into, and what its parameters are there."""

    module: Module
    function: ast.FunctionDef | None = None
    given: dict[str, list[Text] | Elements] = field(default_factory=dict)
    depth: int = 0
    busy: tuple[str, ...] = ()


class House:
    """All modules of the package, parsed."""

    def __init__(self, root: Path = ROOT) -> None:
        self.modules = {path: read(path) for room in ROOMS for path in sorted((root / room).rglob("*.py"))}
        self.by_name = {".".join(path.relative_to(root).with_suffix("").parts): m for path, m in self.modules.items()}
        self.methods: dict[str, list[tuple[str, Module, ast.FunctionDef]]] = {}
        self.attributes: dict[str, list[tuple[Module, ast.expr]]] = {}
        self.keys: dict[str, list[Text]] = {}
        """By the name of a table, the constants that things are filed under."""
        for module in self.modules.values():
            for kind in (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)):
                for part in kind.body:
                    if isinstance(part, ast.FunctionDef):
                        self.methods.setdefault(part.name, []).append((kind.name, module, part))
                    if isinstance(part, ast.AnnAssign | ast.Assign) and isinstance(part.value, ast.Constant):
                        (target,) = part.targets if isinstance(part, ast.Assign) else (part.target,)
                        if isinstance(target, ast.Name) and target.id not in NAMED and " " in str(part.value.value):
                            self.attributes.setdefault(target.id, []).append((module, part.value))

        for module in self.modules.values():
            for node in ast.walk(module.tree):
                match node:
                    case ast.Subscript(value=ast.Name(id=table), slice=ast.Name(id=key)) if key in module.values:
                        known = self.keys.setdefault(table, [])
                        known += [text for text in self.texts(module.values[key], Scope(module)) if text not in known]

    # what is said -----------------------------------------------------------------------------------------------------

    def texts(self, expression: ast.expr, scope: Scope) -> list[Text] | Elements:
        """Every text that an expression may be, or every element where it is a list."""
        if scope.depth > DEEPEST:
            return [(NAME,)]
        method = getattr(self, f"_{type(expression).__name__}", None)
        found: list[Text] | Elements = method(expression, scope) if method else [(NAME,)]
        return unique(found)

    def _Constant(self, node: ast.Constant, scope: Scope) -> list[Text]:
        if node.value is None or isinstance(node.value, bool):
            return []
        return [(node.value,)] if isinstance(node.value, str) else [(str(node.value),)]

    def _JoinedStr(self, node: ast.JoinedStr, scope: Scope) -> list[Text]:
        return combined([self.texts(part, scope) for part in node.values])

    def _FormattedValue(self, node: ast.FormattedValue, scope: Scope) -> list[Text]:
        if node.format_spec and ast.unparse(node.format_spec)[-2:-1] in "gf%d,e":
            return [(Sample(number=True),)] if ast.unparse(node.format_spec)[-2:-1] != "%" else [(NUMBER, "%")]
        said = list(self.texts(node.value, scope)) or [(NAME,)]
        if node.conversion == ord("r"):
            return [(Sample(quoted=True),)]
        return said

    def _BinOp(self, node: ast.BinOp, scope: Scope) -> list[Text] | Elements:
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return [(), (node.left.value,)]
        if not isinstance(node.op, ast.Add):
            return [(NUMBER,)]
        left, right = self.texts(node.left, scope), self.texts(node.right, scope)
        if isinstance(left, Elements) or isinstance(right, Elements):
            return Elements([*left, *right])
        if all(isinstance(part, Sample) for text in (*left, *right) for part in text):
            return [(NUMBER,)]
        return combined([left, right])

    def _IfExp(self, node: ast.IfExp, scope: Scope) -> list[Text] | Elements:
        return either([self.texts(node.body, scope), self.texts(node.orelse, scope)])

    def _BoolOp(self, node: ast.BoolOp, scope: Scope) -> list[Text] | Elements:
        found = either([self.texts(part, scope) for part in node.values])
        said = [text for text in found if text != ("",)]  # `x or ""`: that nothing is said is no sentence
        return Elements(said) if isinstance(found, Elements) else said

    def _NamedExpr(self, node: ast.NamedExpr, scope: Scope) -> list[Text] | Elements:
        return self.texts(node.value, scope)

    def _Starred(self, node: ast.Starred, scope: Scope) -> Elements:
        return Elements(self.texts(node.value, scope))

    def _List(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Elements:
        return Elements([text for part in node.elts for text in self.texts(part, scope)])

    _Tuple = _Set = _List

    def _ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, scope: Scope) -> Elements:
        given = {**scope.given}
        for loop in node.generators:
            given |= self._bound(loop.target, loop.iter, Scope(scope.module, scope.function, given, scope.depth + 1))
        return Elements(self.texts(node.elt, Scope(scope.module, scope.function, given, scope.depth + 1, scope.busy)))

    _GeneratorExp = _SetComp = _ListComp

    def _bound(self, target: ast.expr, values: ast.expr, scope: Scope) -> dict[str, list[Text] | Elements]:
        """What a loop's names are: the elements for one name; for several, nothing that is known."""
        if isinstance(target, ast.Name):
            found = self.texts(values, scope)
            return {target.id: list(found) if isinstance(found, Elements) and found else [(NAME,)]}
        names = [name.id for name in ast.walk(target) if isinstance(name, ast.Name)]
        match values:
            case ast.Call(func=ast.Attribute(attr="items", value=ast.Attribute(attr=table))) if table in self.keys:
                return {names[0]: self.keys[table], **{name: [(NAME,)] for name in names[1:]}}
        if isinstance(values, ast.Name) and scope.function:
            values = assigned(values.id, scope.function) or values
        if isinstance(values, ast.Tuple) and all(isinstance(each, ast.Tuple) for each in values.elts):
            columns = zip(*(each.elts for each in values.elts if isinstance(each, ast.Tuple)), strict=True)
            return {n: either([self.texts(e, scope) for e in c]) for n, c in zip(names, columns, strict=True)}
        if isinstance(values, ast.Call) and isinstance(values.func, ast.Name):
            module, function = self.function(values.func.id, scope.module)
            given = [node.value for node in ordered(function) if isinstance(node, ast.Yield)] if function else []
            if given and all(isinstance(each, ast.Tuple) and len(each.elts) == len(names) for each in given):
                inner = Scope(module, function, {name: [(NAME,)] for name in defaults(function)}, scope.depth + 1)
                columns = zip(*(each.elts for each in given), strict=True)
                return {n: either([self.texts(e, inner) for e in c]) for n, c in zip(names, columns, strict=True)}
        return {name: [(NAME,)] for name in names}

    def _Subscript(self, node: ast.Subscript, scope: Scope) -> list[Text] | Elements:
        if isinstance(node.value, ast.Dict):
            return either([self.texts(value, scope) for value in node.value.values])
        found = self.texts(node.value, scope)
        if isinstance(found, Elements):
            return found if isinstance(node.slice, ast.Slice) else list(found)
        return [(NAME,)]

    def _Attribute(self, node: ast.Attribute, scope: Scope) -> list[Text] | Elements:
        return [
            text for module, value in self.attributes.get(node.attr, ()) for text in self.texts(value, Scope(module))
        ] or [(NAME,)]

    def _Name(self, node: ast.Name, scope: Scope) -> list[Text] | Elements:
        if node.id in scope.given:
            return scope.given[node.id]
        if node.id in scope.busy:
            return []
        inner = Scope(scope.module, scope.function, scope.given, scope.depth + 1, (*scope.busy, node.id))
        if scope.function and (found := self._local(node.id, inner)) is not None:
            return found
        if node.id in scope.module.values:
            return self.texts(scope.module.values[node.id], Scope(scope.module, depth=scope.depth + 1))
        if node.id in scope.module.imports:
            where, name = scope.module.imports[node.id]
            if (other := self.by_name.get(where)) and name in other.values:
                return self.texts(other.values[name], Scope(other, depth=scope.depth + 1))
        return [(NAME,)]

    def _local(self, name: str, scope: Scope) -> list[Text] | Elements | None:
        """What a function assigns to a name, adds to it and appends; None where it is no name of the function's own."""
        found: list[Text] | Elements | None = None
        assert scope.function
        for node in ordered(scope.function):
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    found = either([found, self.texts(value, scope)] if found else [self.texts(value, scope)])
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                    found = self.texts(value, scope)
                case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                    found = self.texts(value, scope)
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if any(
                    isinstance(each, ast.Name) and each.id == name for each in names
                ):
                    place = next(n for n, each in enumerate(names) if isinstance(each, ast.Name) and each.id == name)
                    found = self.texts(values[place], scope) if len(names) == len(values) else [(NAME,)]
                case ast.Assign(targets=[ast.Tuple(elts=names)]) if any(
                    isinstance(each, ast.Name) and each.id == name for each in names
                ):
                    found = [(NAME,)]
                case ast.For(target=target, iter=values) if name in (bound := self._bound(target, values, scope)):
                    found = bound[name]
                case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name and found is not None:
                    more = self.texts(value, scope)
                    if isinstance(found, Elements):
                        found = Elements([*found, *more])
                    else:
                        longer = combined([found, more])
                        found = longer if node in scope.function.body else either([found, longer])
                case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr="append"), args=[value]) if (
                    target == name
                ):
                    found = Elements([*(found or []), *self.texts(value, scope)])
        return found

    def _Call(self, node: ast.Call, scope: Scope) -> list[Text] | Elements:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if isinstance(node.func, ast.Attribute):
            return self._method(node, name, scope)
        if name in COUNTING:
            return [(NUMBER,)]
        if name in SPELT and node.args:
            return self.texts(node.args[0], scope)
        if name == "next":
            return either([list(self.texts(argument, scope)) for argument in node.args])
        if name == "in_words" and "weight_count" in scope.module.imports.get(name, ("",))[0]:
            return [(NUMBER, " GB")]
        if name == "number_of":
            (noun,) = self.texts(node.args[1], scope)
            return [(NUMBER, " ", *noun, "s"), ("1 ", *noun)]
        module, function = self.function(name, scope.module)
        if function is None or not speaks(function):
            return [(NAME,)]
        names = [argument.arg for argument in function.args.args]
        given = {key: self.texts(value, deeper(scope)) for key, value in zip(names, node.args, strict=False)}
        given |= {word.arg: self.texts(word.value, deeper(scope)) for word in node.keywords if word.arg}
        return self.said_by(function, Scope(module, function, given, scope.depth + 1))

    def _method(self, node: ast.Call, name: str, scope: Scope) -> list[Text] | Elements:
        assert isinstance(node.func, ast.Attribute)
        value = node.func.value
        if name == "join" and node.args:
            return joined(self.texts(value, scope), self.texts(node.args[0], scope))
        if name in METHODS:
            return self.texts(value, scope)
        if name == "items" or name == "get":
            return [(NAME,)]
        kind = kind_of(value, scope.function)
        if made := self.function(kind, scope.module)[1]:
            kind = ast.unparse(made.returns) if made.returns else ""
        known = [
            (module, method) for owner, module, method in self.methods.get(name, ()) if owner == kind and speaks(method)
        ]
        if not known:
            return [(NAME,)]
        return either([self.said_by(method, Scope(module, method, {}, scope.depth + 1)) for module, method in known])

    def function(self, name: str, module: Module) -> tuple[Module, ast.FunctionDef | None]:
        if name in module.functions:
            return module, module.functions[name]
        where, real = module.imports.get(name, ("", ""))
        other = self.by_name.get(where)
        return (other, other.functions.get(real)) if other else (module, None)

    def said_by(self, function: ast.FunctionDef, scope: Scope) -> list[Text] | Elements:
        """What a function returns or yields."""
        if scope.depth > DEEPEST:
            return [(NAME,)]
        arguments = function.args.args
        usual = dict(zip([each.arg for each in arguments[::-1]], function.args.defaults[::-1], strict=False))
        given = {name: [(NAME,)] for name in defaults(function)}
        given |= {
            n: self.texts(d, scope)
            for n, d in usual.items()
            if isinstance(d, ast.Constant) and isinstance(d.value, str)
        }
        inner = Scope(scope.module, function, {**given, **scope.given}, scope.depth, ())
        found = []
        for node in ordered(function):
            if isinstance(node, ast.Return | ast.Yield) and node.value:
                said = self.texts(node.value, inner)
                found.append(Elements(said) if isinstance(node, ast.Yield) else said)
        return either(found)


def read(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = Module(path.relative_to(ROOT).as_posix(), tree)
    package = path.relative_to(ROOT).parts[:-1]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            module.functions[node.name] = node
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            names = [target.id for target in node.targets[0].elts if isinstance(target, ast.Name)]
            module.values |= dict(zip(names, node.value.elts, strict=False))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            module.values[node.targets[0].id] = node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            module.values[node.target.id] = node.value
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            where = ".".join([*above, *(node.module or "").split(".")])
            module.imports |= {name.asname or name.name: (where, name.name) for name in node.names}
    return module


def ordered(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The parts of a function as they are written, without functions in it."""
    waiting: list[ast.AST] = [*reversed(function.body)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting += reversed([*ast.iter_child_nodes(node)])


def assigned(name: str, function: ast.FunctionDef) -> ast.expr | None:
    """What a function gives a name, where it does so once and for all."""
    for node in ordered(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Tuple() as value) if target == name:
                return value
    return None


def speaks(function: ast.FunctionDef) -> bool:
    """Whether it gives text, or texts."""
    kind = ast.unparse(function.returns) if function.returns else ""
    return "str" in kind and "dict" not in kind and "Path" not in kind and "tuple[" not in kind


def defaults(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    return [
        each.arg
        for each in (*arguments.args, *arguments.kwonlyargs, *filter(None, [arguments.vararg, arguments.kwarg]))
    ]


def kind_of(value: ast.expr, function: ast.FunctionDef | None) -> str:
    """The class of a value, as an annotation or its making says; empty where neither does."""
    if not isinstance(value, ast.Name) or function is None:
        return ""
    for argument in (*function.args.args, *function.args.kwonlyargs):
        if argument.arg == value.id and argument.annotation:
            return ast.unparse(argument.annotation).removesuffix(" | None")
    for node in ordered(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=kind))) if name == value.id:
                return kind
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute(attr="plan")) if name == value.id:
                return "RolloutPlan"
    return ""


def deeper(scope: Scope) -> Scope:
    return Scope(scope.module, scope.function, scope.given, scope.depth + 1, scope.busy)


def unique(texts: list[Text] | Elements) -> list[Text] | Elements:
    kept = list(dict.fromkeys(texts))
    return Elements(kept) if isinstance(texts, Elements) else kept


def either(alternatives: list[list[Text] | Elements]) -> list[Text] | Elements:
    found = [text for texts in alternatives for text in texts]
    return Elements(found) if any(isinstance(texts, Elements) for texts in alternatives) else found


def combined(parts: list[list[Text] | Elements]) -> list[Text]:
    """One alternative of each part behind the other; not all combinations where they are too many."""
    parts = [list(part) or [()] for part in parts]
    count = 1
    for part in parts:
        count *= len(part)
    if count <= MOST:
        return [sum(choice, ()) for choice in product(*parts)]
    first = [part[0] for part in parts]
    rows = [first, *([*first[:n], other, *first[n + 1 :]] for n, part in enumerate(parts) for other in part[1:])]
    return [sum(row, ()) for row in rows]


def joined(between: list[Text] | Elements, texts: list[Text] | Elements) -> list[Text]:
    """Each by itself, and two of them; what a word joins (``a and b``) are two at least."""
    texts = list(texts) or [(NAME,)]
    gap = between[0] if between else ()
    pair = texts[0] + gap + texts[-1]
    return [pair] if any(isinstance(part, str) and part.strip(" ").isalpha() for part in gap) else [*texts, pair]


# sentences of the code ------------------------------------------------------------------------------------------------


@cache
def house() -> House:
    return House()


def filled(text: Text) -> tuple[str, list[str]]:
    """A sentence with samples in it, and the samples."""
    values, parts = [], []
    for part in text:
        if isinstance(part, str):
            parts.append(part)
            continue
        sample = str(71 + len(values)) if part.number else f"Δ{len(values) + 1}"
        parts.append(f"'{sample}'" if part.quoted else sample)
        values.append(sample)
    return "".join(parts), values


def sentences(texts: Iterable[Text]) -> dict[str, list[str]]:
    return dict(filled(text) for text in texts)


def everywhere() -> Iterator[tuple[Module, ast.FunctionDef]]:
    for module in house().modules.values():
        yield from ((module, node) for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef))


ASKED = ("why", "what")
"""Parameters that are sentences: what all callers give for them is said."""


def outermost(module: Module, function: ast.FunctionDef) -> Scope:
    """A function of which nothing is known but what its callers let it say."""
    given: dict[str, list[Text] | Elements] = {name: [(NAME,)] for name in defaults(function)}
    for name in ASKED:
        if name in given and (said := told_by_callers(function, name)):
            given[name] = said
    return Scope(module, function, given)


@cache
def calls() -> dict[str, list[tuple[Module, ast.FunctionDef, ast.Call]]]:
    """By the name of what is called."""
    found: dict[str, list[tuple[Module, ast.FunctionDef, ast.Call]]] = {}
    for module, function in everywhere():
        for node in ordered(function):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                found.setdefault(name, []).append((module, function, node))
    return found


def told_by_callers(function: ast.FunctionDef, name: str) -> list[Text]:
    place = [argument.arg for argument in function.args.args if argument.arg != "self"].index(name)
    found: list[Text] = []
    for module, caller, call in calls().get(function.name, ()):
        if len(call.args) > place:
            scope = Scope(module, caller, {each: [(NAME,)] for each in defaults(caller)})
            found += house().texts(call.args[place], scope)
    return found


def shown_on_nodes() -> dict[str, list[str]]:
    """What nodes give for the eye (``ui.text``), and what a run notes for it: by the sentence, its samples."""
    found: list[Text] = []
    for module, function in everywhere():
        for node in ordered(function):
            for value in values_for_the_eye(node):
                found += house().texts(value, outermost(module, function))
    return sentences(found)


KEPT = {"classes_of": "data/", "unreadable": "data/reading/pictures.py", "in_words": "runs/bad_steps.py"}
"""Functions, and where they are, whose sentences are kept, and are shown or raised by others later."""


def kept_for_later() -> dict[str, list[str]]:
    """Why there are no classes, what is wrong with a file, which step taught nothing."""
    found: list[Text] = []
    for module, function in everywhere():
        if module.name.startswith(KEPT.get(function.name, "-")):
            for node in ordered(function):
                match node:
                    case ast.Return(value=ast.Tuple(elts=[_, said]) | (ast.JoinedStr() as said)):
                        found += house().texts(said, outermost(module, function))
    return sentences(found)


def values_for_the_eye(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Dict(keys=keys, values=values):
            yield from (value for key, value in zip(keys, values, strict=True) if is_text(key) and is_said(value))
        case ast.Call(func=ast.Attribute(attr="batches"), args=args):
            yield from args[3:]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="notes") | ast.Attribute(attr="notes"), attr="append")):
            yield from node.args
        case ast.keyword(arg="notes", value=ast.List() as value):
            yield value
        case ast.AugAssign(target=ast.Name(id="notes"), value=value):
            yield value
        case ast.Assign(targets=[ast.Name(id="notes" | "restored")], value=value):
            yield value
        case ast.Return(value=ast.Dict()):
            return


def is_text(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and key.value == "text"


def is_said(value: ast.expr) -> bool:
    return isinstance(value, ast.List | ast.Name | ast.ListComp | ast.Call)


def raised(silent: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What errors say, save those of the folders and files that are named: by the sentence, its samples."""
    found: list[Text] = []
    for module, function in everywhere():
        if not module.name.startswith(silent):
            for node in ordered(function):
                if said := errors_in(node, function):
                    found += map(of_a_file, house().texts(said, outermost(module, function)))
    return sentences(found)


def joined_by(silent: tuple[str, ...] = ()) -> dict[str, str]:
    """What stands between values that are joined, by the place in the code, save in the folders that are named."""
    return {
        f"{module.name}:{node.lineno}": str(words)
        for module, function in everywhere()
        if not module.name.startswith(silent)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == "join"
        if isinstance(node.value, ast.Constant) and (words := node.value.value)
    }


def of_a_file(text: Text) -> Text:
    """What begins with a verb (``holds zero bytes``) is said of a file, whose name somebody else puts before it."""
    return (NAME, " ", *text) if str(text[0]).startswith(("is ", "holds ", "says ")) else text


def errors_in(node: ast.AST, function: ast.FunctionDef) -> ast.expr | None:
    match node:
        case ast.Raise(exc=ast.Call(args=[said, *_])):
            return said
        case ast.Return(value=ast.JoinedStr() | ast.Constant() as said) if function.name == "VALIDATE_INPUTS":
            return said if isinstance(said, ast.JoinedStr) or isinstance(said.value, str) else None
        case ast.Return(value=ast.Call(func=ast.Name(id="StepError"), args=[said])):
            return said
    return None
