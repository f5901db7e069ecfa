"""Check a prompt before it runs; errors have the shapes of ComfyUI's 400 replies, so its frontend can show them."""

from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from typing import Any

from ..node_class import Classes, hidden_inputs, input_spec, is_blocker, is_link, is_output
from ..settle import settle
from . import validation_errors as errors
from .validation_errors import Error, Plain
from .widget_check import check_value

MOST_DEPENDENT = 50
"""Outputs that an error lists as depending on it."""

Verdict = tuple[bool, list[Error]]  # (valid, the node's own errors)


@dataclass
class Validation:
    """What is wrong with a prompt, if anything."""

    error: Error | None = None
    """Why nothing can run, in ComfyUI's top-level shape; None if at least one output can."""
    node_errors: dict[str, Any] = field(default_factory=dict)
    """{node id: {"errors": [...], "dependent_outputs": [...], "class_type": ...}}, also beside outputs that can run."""
    outputs: list[str] = field(default_factory=list)
    """Ids of the output nodes that can run."""
    prompt: dict[str, Any] = field(default_factory=dict)
    """The prompt with its values converted to the declared types; the argument is left as it was."""
    missing: dict[str | None, list[str]] = field(default_factory=dict)
    """{class: node ids} of all nodes whose class is not installed, or None for those that name none."""


def validate(prompt: Any, mapping: Classes, targets: Collection[str] | None = None) -> Validation:
    """Check every node that an output depends on. `targets` narrows the outputs to these ids. Never raises."""
    if not isinstance(prompt, dict):
        return Validation(errors.error("no_prompt", "No prompt provided", "No prompt provided"))
    missing = errors.missing_classes(prompt, mapping)
    if missing:
        return Validation(errors.missing_class(prompt, missing), prompt=prompt, missing=missing)
    check = _Check(_copy(prompt), mapping)
    outputs = [node_id for node_id, node in prompt.items() if is_output(mapping[node["class_type"]])]
    wanted = None if targets is None else set(targets)
    outputs = [node_id for node_id in outputs if wanted is None or node_id in wanted]
    if not outputs:
        return Validation(errors.error("prompt_no_outputs", "Prompt has no outputs"), prompt=check.prompt)
    found = Validation(prompt=check.prompt)
    failures, failed = [], []
    for output in outputs:
        valid, own = check.output(output)
        if valid:
            found.outputs.append(output)
            continue
        failed.append(output)
        failures += [f"{error['message']}: {error['details']}" for error in own]
    found.node_errors = _node_errors(check, failed)
    found.outputs = _of_use(found.outputs, check)
    if not found.outputs:
        summary = "Prompt outputs failed validation"
        found.error = errors.error("prompt_outputs_failed_validation", summary, "\n".join(failures))
    return found


def _copy(prompt: dict[str, Any]) -> dict[str, Any]:
    """Deep enough for values to be replaced, and no deeper: a value may be nested beyond what copying can follow."""
    return {
        node_id: node | {"inputs": dict(node["inputs"])} if isinstance(node.get("inputs"), dict) else node
        for node_id, node in prompt.items()
    }


def _node_errors(check: "_Check", failed: list[str]) -> dict[str, Any]:
    """The errors by node, each with some of the failed outputs that depend on it, in time linear in the graph.

    A node hands its outputs on to those that it depends on once all that depend on it have done so, if it can.
    """
    dependents: dict[str, dict[str, None]] = {output: {output: None} for output in failed}
    for node_id in reversed(_parents_first(check.prompt, failed)):
        outputs = list(dependents.get(node_id, ()))
        for source in _sources(check.prompt, node_id):
            known = dependents.setdefault(source, {})
            known |= dict.fromkeys(outputs[: max(0, MOST_DEPENDENT - len(known))])
    found = {}
    for node_id, (valid, own) in check.verdicts.items():
        if not valid and own:
            class_type = check.prompt[node_id]["class_type"] if node_id in check.prompt else None
            outputs = list(dependents.get(node_id, ()))
            found[node_id] = {"errors": own, "dependent_outputs": outputs, "class_type": class_type}
    return found


def _of_use(outputs: list[str], check: "_Check") -> list[str]:
    """Without those that only feed nodes that cannot run: samples of a training are nothing without the training."""
    fed: dict[str, set[bool]] = {}
    for node_id in check.prompt:
        for source in _sources(check.prompt, node_id):
            fed.setdefault(source, set()).add(check.verdicts.get(node_id, (True, []))[0])
    return [output for output in outputs if fed.get(output) != {False}]


def _sources(prompt: dict[str, Any], node_id: str) -> list[str]:
    """The nodes that a node is linked to."""
    inputs = prompt[node_id].get("inputs")
    linked = inputs.values() if isinstance(inputs, dict) else ()
    return [value[0] for value in linked if is_link(value) and value[0] in prompt]


def _parents_first(prompt: dict[str, Any], outputs: list[str]) -> list[str]:
    """The outputs and all they depend on, each behind what it depends on; in a cycle, somewhere."""
    order: dict[str, None] = {}
    opened: dict[str, None] = {}
    for output in outputs:
        pending = [output]
        while pending:
            node_id = pending[-1]
            if node_id not in opened:
                opened[node_id] = None
                pending += [source for source in _sources(prompt, node_id) if source not in opened]
            else:
                order.setdefault(pending.pop())
    return list(order)


class _Check:
    """One pass over a prompt. A node's check is a generator that yields the ids it depends on and is sent their
    verdicts, so the depth of a graph is a list's length and never the interpreter's stack."""

    def __init__(self, prompt: dict[str, Any], mapping: Classes):
        self.prompt = prompt
        self.mapping = mapping
        self.verdicts: dict[str, Verdict] = {}

    def output(self, node_id: str) -> Verdict:
        try:
            return self._drive(node_id)
        except Exception as error:
            self.verdicts[node_id] = (False, [errors.exception("exception_during_validation", error)])
            return self.verdicts[node_id]

    def _drive(self, node_id: str) -> Verdict:
        """Run the generators of a node and of all it depends on; `visiting` is the path down to the present one."""
        if node_id in self.verdicts:
            return self.verdicts[node_id]
        visiting = {node_id: self._node(node_id)}
        verdict: Verdict | None = None
        failure: Exception | None = None
        while visiting:
            current, steps = next(reversed(visiting.items()))
            try:
                needed = steps.throw(failure) if failure is not None else steps.send(verdict)
                verdict, failure = self._known(needed, visiting), None
                if verdict is None:
                    visiting[needed] = self._node(needed)
            except StopIteration as stop:
                del visiting[current]
                verdict, failure = stop.value, None
            except Exception as error:
                del visiting[current]
                failure = error
        if failure is not None:
            raise failure
        assert verdict is not None
        return verdict

    def _known(self, node_id: str, visiting: dict[str, Any]) -> Verdict | None:
        if node_id in self.verdicts:
            return self.verdicts[node_id]
        if node_id not in visiting:
            return None
        path = list(visiting)
        path = [*path[path.index(node_id) :], node_id]
        for member, problem in errors.cycle(path, self.prompt).items():
            self.verdicts[member] = (False, [problem])
        return self.verdicts[node_id]

    def _node(self, node_id: str) -> Generator[str, Verdict | None, Verdict]:
        node = self.prompt[node_id]
        node_class = self.mapping[node["class_type"]]
        inputs, types = node["inputs"], node_class.INPUT_TYPES()
        custom = errors.CustomValidation(node_class)
        own: list[Error] = []
        received: dict[str, Any] = {}
        valid = True
        for name in [*types.get("required", {}), *types.get("optional", {})]:
            kind, category, options = input_spec(types, name)
            if name not in inputs:
                if category == "required":
                    own.append(errors.required_missing(name))
            elif not isinstance(inputs[name], list):
                own += check_value(inputs, name, kind, options, ranges=not custom.takes(name))
            else:
                problem = self._link(node_id, name, (kind, options), received, custom.takes_types)
                if problem is not None:
                    own.append(problem)
                else:
                    valid &= yield from self._upstream(node_id, name, (kind, options))
        if not any(custom.takes(error["extra_info"].get("input_name", "")) for error in own if _is_missing(error)):
            own += self._custom(node_id, types, custom, received)
        known, earlier = self.verdicts.get(node_id, (True, []))  # a cycle may have been found meanwhile
        merged = earlier + [error for error in own if error not in earlier]
        self.verdicts[node_id] = (known and valid and not own, merged)
        return self.verdicts[node_id]

    def _link(self, node_id: str, name: str, config: Any, received: dict[str, Any], any_type: bool) -> Error | None:
        link = self.prompt[node_id]["inputs"][name]
        if len(link) != 2:
            return errors.bad_link(name, config, link)
        source, slot = link
        if source not in self.prompt:
            raise KeyError(Plain(f"node {node_id} input {name} is linked to node {source}, which does not exist"))
        made = self.mapping[self.prompt[source]["class_type"]].RETURN_TYPES
        try:
            received[name] = made[slot]
        except IndexError as error:
            has = f"which has {len(made)} output{'s' * (len(made) != 1)}"
            raise IndexError(
                f"node {node_id} input {name} is linked to output {slot} of node {source}, {has}"
            ) from error
        if not any_type and not types_match(made[slot], config[0]):
            return errors.type_mismatch(name, config, made[slot], link)
        return None

    def _upstream(self, node_id: str, name: str, config: Any) -> Generator[str, Verdict | None, bool]:
        link = self.prompt[node_id]["inputs"][name]
        try:
            verdict = yield link[0]
        except Exception as error:
            problem = errors.exception("exception_during_inner_validation", error, name, config, link)
            self.verdicts[link[0]] = (False, [problem])
            return False
        return verdict is not None and verdict[0]

    def _custom(self, node_id: str, types: Any, custom: "errors.CustomValidation", received: Any) -> list[Error]:
        if custom.function is None or not custom.is_wanted:
            return []
        constants = {
            name: None if is_link(value) else value
            for name, value in self.prompt[node_id]["inputs"].items()
            if is_link(value) or input_spec(types, name)[1] is not None
        }
        given = constants | hidden_inputs(types, node_id)
        given = {name: value for name, value in given.items() if custom.takes(name)}
        if custom.takes_types:
            given["input_types"] = received
        verdict = settle(custom.function(**given))
        if verdict is True or is_blocker(verdict):
            return []
        return errors.custom([name for name in given if name != "input_types"] or ["input_types"], verdict)


def _is_missing(error: Error) -> bool:
    return error["type"] == "required_input_missing"


def types_match(made: Any, wanted: Any) -> bool:
    """ComfyUI's rule for an output and an input type: equal, a wildcard, or comma lists that overlap."""
    wild = ("*", "COMFY_MATCHTYPE_V3")
    differs = made != wanted  # this very operator: packs override it in a str that is to equal every type
    if not differs or made in wild or wanted in wild:
        return True
    if isinstance(made, list) and wanted == "COMBO":
        return True
    if not isinstance(made, str) or not isinstance(wanted, str):
        return False
    made_types, wanted_types = ({part.strip() for part in kind.split(",")} for kind in (made, wanted))
    return "*" in made_types | wanted_types or bool(made_types & wanted_types)
