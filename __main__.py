"""The command line: run, validate and convert workflow files, list the nodes, and serve the editor.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 stopped by ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, __version__
from .graph import Executor, WorkflowError, describe, is_prompt, load, object_info, to_prompt, validate
from .graph.overrides import OverrideError, apply
from .graph.reference import explained, indented, reference
from .graph.write_back import write_back
from .training.host import EventHost, choose_device, hosted_by
from .training.run_folder import versions

WRONG_INPUT = 2
FAILED = 1
STOPPED = 130

TRAINER = "RolloutOptimizerStep"

ROOT = Path(__file__).resolve().parent

Hosted = Callable[[Executor, threading.Event], AbstractContextManager[None]]


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
    serve = command("serve", serve_command, "Open the graph editor in a browser.")
    for taker in (run, serve):
        taker.add_argument(
            "--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (output)"
        )
        taker.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (auto)")
        taker.add_argument(
            "--listen", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 for other machines too (127.0.0.1)"
        )
        taker.add_argument("--port", type=int, default=8188, help="0 takes any free one (8188)")
        taker.add_argument(
            "--user-directory", type=Path, metavar="DIR", help="where saved workflows go (user, beside the output)"
        )
        taker.add_argument("--token", help="what browsers must know; made up where --listen needs one")
        taker.add_argument("--no-auth", action="store_true", help="let in whoever reaches the address")
    serve.add_argument("--open", action="store_true", help="open the browser, too")
    run.add_argument("--watch", action="store_true", help="show the run in a browser while it goes")
    run.add_argument("--traceback", action="store_true", help="show where in the code a run failed")
    nodes.add_argument("node", nargs="?", help="class or display name")
    nodes.add_argument("--markdown", action="store_true", help="all nodes with all inputs, as docs/nodes.md")
    return top


def read(options: argparse.Namespace) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The workflow for the canvas and the prompt it makes, both with the changes of the command line.

    There is no workflow where the file holds none, or where a change cannot be shown on the canvas.
    """
    workflow = load(options.workflow)
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    overrides = list(options.overrides)
    prompt = to_prompt(workflow, definitions)
    if options.seed is not None:
        trainers = [node_id for node_id, node in prompt.items() if node.get("class_type") == TRAINER]
        if not trainers:
            raise Refused("--seed: the workflow has no Optimizer Step, so nothing is trained")
        overrides += [f"{node_id}.seed={options.seed}" for node_id in trainers]
    changed = apply(prompt, definitions, overrides)
    return None if is_prompt(workflow) else write_back(workflow, definitions, prompt, changed), changed


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
    wanted = options.node.lower()
    found = [node for name, node in definitions.items() if wanted in (name.lower(), node["display_name"].lower())]
    if not found:
        raise Refused(f"there is no node {options.node!r}: `comfyui-rollout nodes` lists them")
    print(explained(found[0]))
    return 0


def run_command(options: argparse.Namespace) -> int:
    workflow, prompt = read(options)
    validation = checked(prompt)
    hosted = hosting(options, watching=options.watch)
    pnginfo = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
    stop = threading.Event()
    with stopping(stop), Terminal(prompt, options.output) as terminal:
        if options.watch:
            result = watched_run(options, hosted, validation, pnginfo, terminal, stop)
        else:
            executor = Executor(NODE_CLASS_MAPPINGS)
            with hosted(executor, stop):
                result = executor.run(
                    validation.prompt, outputs=validation.outputs, extra_data=pnginfo, listener=terminal, interrupt=stop
                )
    return conclusion(result, options)


def chosen_device(options: argparse.Namespace) -> str:
    try:
        return choose_device(options.device)
    except ValueError as error:
        raise Refused(f"--device: {error}") from None


def hosting(options: argparse.Namespace, watching: bool = True) -> Hosted:
    """What joins the graph runner and the training: in its context, runs report to an executor and obey its stop."""
    output, device = options.output.resolve(), chosen_device(options)

    @contextmanager
    def hosted(executor: Executor, stop: threading.Event) -> Iterator[None]:
        host = EventHost(
            output,
            device,
            progress=executor.progress,
            preview=executor.preview,
            finish=executor.finish,
            send=executor.send,
            interrupted=stop.is_set,
            watching=lambda: watching,
        )
        with hosted_by(host):
            yield

    return hosted


def serve_command(options: argparse.Namespace) -> int:
    from .server import serve_until_stopped

    with ExitStack() as stack:
        _, app, opened, address = studio_on(options, hosting(options), stack)

        def ready() -> None:
            print(f"ComfyUI-Rollout is at {address}", flush=True)
            if options.open:
                webbrowser.open(address)

        serve_until_stopped(app, opened, ready)
    return 0


def watched_run(
    options: argparse.Namespace, hosted: Hosted, validation: Any, extra_data: Any, observer: Any, stop: threading.Event
) -> Any:
    """Run a prompt on a server, so that browsers can watch it; returns how it ended."""
    from .server import serving

    with ExitStack() as stack:
        studio, app, opened, address = studio_on(options, hosted, stack)
        stack.enter_context(serving(app, opened))
        print(f"watch it at {address}", file=sys.stderr, flush=True)
        job = studio.submit(validation.prompt, validation.outputs, extra_data, observer=observer, interrupt=stop)
        while not job.done.wait(0.2):  # a wait without end would hold back ctrl-C on some systems
            pass
        return job.result


def studio_on(options: argparse.Namespace, hosted: Hosted, stack: ExitStack) -> Any:
    """(studio, application, listening socket, address) as the options want them; what is temporary goes with the stack.

    Raises Refused where the server cannot start.
    """
    from . import server

    output = options.output.resolve()
    is_private = server.is_loopback(options.listen)
    token = options.token or (None if is_private or options.no_auth else server.new_token())
    try:
        folders = server.Folders(
            frontend=server.frontend_folder(),
            web=ROOT / "web",
            workflows=ROOT / "workflows",
            output=output,
            input=output.parent / "input",
            temp=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyui-rollout-"))),
            user=(options.user_directory or output.parent / "user").resolve(),
        )
        opened = stack.enter_context(server.listening_socket(options.listen, options.port))
    except server.CannotServe as error:
        raise Refused(str(error)) from None
    if token is None and not is_private:
        print(f"warning: whoever reaches {options.listen} can use this server and read its output", file=sys.stderr)
    nodes = (NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    studio = server.Studio(*nodes, folders, hosted, device=chosen_device(options), versions=versions())
    app = server.application(studio, server.Access.on(options.listen, token))
    return studio, app, opened, server.address_of(opened, token)


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """The first ctrl-C (or SIGTERM) asks the run to stop after its step; the second one ends the program."""

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        print("\nstopping after this step; ctrl-C again to give up at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
            loss = data["rows"][-1]["loss"]
            self.bar.set_postfix(loss="not finite" if loss is None else f"{loss:.4f}", refresh=False)
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
