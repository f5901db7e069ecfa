"""The command line: run, validate and convert workflow files, and list the nodes.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 stopped by ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, __version__
from .graph import Executor, WorkflowError, describe, is_prompt, load, object_info, to_prompt, validate
from .graph.overrides import OverrideError, apply
from .graph.reference import explained, indented, reference
from .training.host import EventHost, choose_device, hosted_by

WRONG_INPUT = 2
FAILED = 1
STOPPED = 130

TRAINER = "RolloutOptimizerStep"


class Refused(Exception):
    """The input is wrong; each line of the message says what, where and how to mend it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except (Refused, WorkflowError, OverrideError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return WRONG_INPUT


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("comfyui-rollout", description="Train diffusion models with node graphs.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=function)
        return added

    run = command("run", run_command, "Run a workflow file without a browser.")
    validate = command("validate", validate_command, "Check a workflow file without running it.")
    convert = command("convert", convert_command, "Print a workflow file in the format that ComfyUI executes.")
    nodes = command("nodes", nodes_command, "List the nodes, or explain one of them.")
    for taker in (run, validate, convert):
        taker.add_argument(
            "workflow", type=Path, help="workflow file (.json), or a picture or weights file that holds one"
        )
        taker.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="NODE.INPUT=VALUE",
            help="change an input; NODE is an id, a title or a class, e.g. OptimizerStep.steps=100",
        )  # fmt: skip
        taker.add_argument("--seed", type=int, help="the training seed: short for --set OptimizerStep.seed=N")
    run.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (output)")
    run.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (auto)")
    run.add_argument("--traceback", action="store_true", help="show where in the code a run failed")
    nodes.add_argument("node", nargs="?", help="class or display name")
    nodes.add_argument("--markdown", action="store_true", help="all nodes with all inputs, as docs/nodes.md")
    return top


def read(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The workflow file as it is, and the prompt it makes with the changes of the command line."""
    workflow = load(options.workflow)
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    overrides = list(options.overrides)
    prompt = to_prompt(workflow, definitions)
    if options.seed is not None:
        trainers = [node_id for node_id, node in prompt.items() if node.get("class_type") == TRAINER]
        overrides += [f"{node_id}.seed={options.seed}" for node_id in trainers]
    return workflow, apply(prompt, definitions, overrides)


def checked(prompt: dict[str, Any]) -> Any:
    validation = validate(prompt, NODE_CLASS_MAPPINGS)
    problems = describe(validation, prompt)
    if problems:
        raise Refused("\n".join(problems))
    return validation


def validate_command(options: argparse.Namespace) -> int:
    _, prompt = read(options)
    validation = checked(prompt)
    print(f"{options.workflow}: {len(prompt)} nodes, {len(validation.outputs)} outputs, all valid")
    return 0


def convert_command(options: argparse.Namespace) -> int:
    _, prompt = read(options)
    print(json.dumps(prompt, indent=2))
    return 0


def nodes_command(options: argparse.Namespace) -> int:
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    if options.markdown:
        print(reference(definitions))
        return 0
    if options.node is None:
        for name, node in definitions.items():
            print(f"{name:<30} {node['display_name']}\n{indented(node['description'])}")
        return 0
    found = [node for name, node in definitions.items() if options.node in (name, node["display_name"])]
    if not found:
        raise Refused(f"there is no node {options.node!r}: `comfyui-rollout nodes` lists them")
    print(explained(found[0]))
    return 0


def run_command(options: argparse.Namespace) -> int:
    workflow, prompt = read(options)
    validation = checked(prompt)
    try:
        device = choose_device(options.device)
    except ValueError as error:
        raise Refused(f"--device: {error}") from None
    stop = threading.Event()
    executor = Executor(NODE_CLASS_MAPPINGS)
    host = EventHost(
        options.output.resolve(),
        device,
        progress=executor.progress,
        preview=executor.preview,
        finish=executor.finish,
        send=executor.send,
        interrupted=stop.is_set,
        watching=lambda: False,
    )
    pnginfo = {} if is_prompt(workflow) else {"extra_pnginfo": {"workflow": workflow}}
    with stopping(stop), Terminal(prompt, options.output) as terminal, hosted_by(host):
        result = executor.run(
            validation.prompt, outputs=validation.outputs, extra_data=pnginfo, listener=terminal, interrupt=stop
        )
    return conclusion(result, options)


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """The first ctrl-C asks the run to stop after its step; the second one ends the program."""

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        print("\nstopping after this step; ctrl-C again to give up at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Terminal:
    """Tells a run on the terminal: a progress bar with loss, steps per second and time left, and what nodes say."""

    def __init__(self, prompt: dict[str, Any], output: Path) -> None:
        self.classes = {node_id: node["class_type"] for node_id, node in prompt.items()}
        self.output = output
        self.bar: Any = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *reason: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        if event == "progress" and self.classes.get(data["node"]) == TRAINER:
            self._move(data["value"], data["max"])
        elif event == "rollout.metrics" and self.bar is not None:
            self.bar.set_postfix(loss=f"{data['rows'][-1]['loss']:.4f}", refresh=False)
        elif event == "executed":
            self._say(data["node"], data["output"])

    def _move(self, value: int, maximum: int) -> None:
        from tqdm import tqdm

        if self.bar is None or value < self.bar.n:
            self.bar = tqdm(total=maximum, unit="step", dynamic_ncols=True, file=sys.stderr)
        self.bar.update(value - self.bar.n)

    def _say(self, node_id: str, ui: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.close()
        name = f"node {node_id} ({display_name(self.classes.get(node_id, ''))})"
        pictures = [str(self.output / image["subfolder"] / image["filename"]) for image in ui.get("images", [])]
        for line in [*ui.get("text", []), *pictures]:
            print(f"{name}: {line}", flush=True)


def display_name(class_type: str) -> str:
    return NODE_DISPLAY_NAME_MAPPINGS.get(class_type, class_type)


def conclusion(result: Any, options: argparse.Namespace) -> int:
    """Say how it ended, if not well; returns the exit code."""
    if result.status == "success":
        return 0
    if result.status == "interrupted":
        print("stopped; what was learnt so far is saved in the run's folder", file=sys.stderr)
        return STOPPED
    if options.traceback:
        print("".join(result.error["traceback"]), file=sys.stderr)
    message = result.error["exception_message"].strip()
    node = f"node {result.error['node_id']} ({display_name(result.error['node_type'])})"
    # An error in a training step names the node in which it happened itself.
    print(f"error: {message if message.startswith('node ') else f'{node}: {message}'}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
