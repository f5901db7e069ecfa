"""The plan of a house of Python files: who imports whom, wherever in a file, and what is wrong with it."""

import ast
from collections import defaultdict


def sources(root, rooms):
    return sorted(path for room in rooms for path in (root / room).rglob("*.py")) + sorted(root.glob("*.py"))


def imports(path):
    """What a file imports: ``(dots, module, name)``, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def arrows(root, rooms):
    """``{file: files that it imports}``, by names relative to the root."""
    found = defaultdict(set)
    for path in sources(root, rooms):
        package = path.relative_to(root).parts[:-1]
        for dots, module, name in imports(path):
            if not dots:
                continue
            above = root.joinpath(*package[: len(package) - dots + 1], *filter(None, module.split(".")))
            places = (
                above / f"{name}.py",
                above / name / "__init__.py",
                above.with_suffix(".py"),
                above / "__init__.py",
            )
            target = next((place for place in places if place.is_file()), None)
            assert target, f"{path} imports {module} {name}, which is not there"
            found[path.relative_to(root).as_posix()].add(target.relative_to(root).as_posix())
    return found


def circle(arrows):
    """Files that import one another in a circle, in its order; empty where there is none."""
    done, way = set(), []

    def visit(file):
        if file in way:
            return way[way.index(file) :]
        if file in done:
            return []
        way.append(file)
        for target in sorted(arrows.get(file, ())):
            if found := visit(target):
                return found
        done.add(way.pop())
        return []

    return next((found for file in sorted(arrows) if (found := visit(file))), [])


def upward(arrows, may_know):
    """Arrows between rooms that the plan does not have: ``(file, file)``."""
    pairs = ((file, target) for file, targets in arrows.items() for target in sorted(targets))
    inside = ((file, target) for file, target in pairs if "/" in file)
    return [
        (file, target)
        for file, target in inside
        if target.split("/")[0] not in may_know[file.split("/")[0]] | {file.split("/")[0]}
    ]


def undocumented(root, rooms, document):
    """Folders of code whose one sentence is missing, or is not the one that the document has for them."""
    folders = sorted({path.parent for room in rooms for path in (root / room).rglob("*.py")})
    missing = []
    for folder in folders:
        name, face = folder.relative_to(root).as_posix(), folder / "__init__.py"
        docstring = ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))) if face.is_file() else None
        sentence = (docstring or "").partition("\n")[0]
        if not sentence or f"| `{name}/` | {sentence} |" not in document:
            missing.append(name)
    return missing


def crowded(root, rooms, most):
    """Folders with more files of code than a person takes in at a glance."""
    folders = defaultdict(int)
    for path in sources(root, rooms):
        if path.parent != root and path.name != "__init__.py":
            folders[path.parent.relative_to(root).as_posix()] += 1
    return {folder: count for folder, count in folders.items() if count > most}
