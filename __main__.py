"""The command line: run, validate, convert and import workflow files, list the nodes, and serve the editor.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 stopped by ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from . import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, __version__
from ._arguments import parser
from ._terminal import FAILED, STOPPED, Stop, Terminal, lasting_output, mute_libraries, stopping, warnings_told
from .data.reading.folder import survey
from .files.names import trouble_with_name
from .files.whole import Unwritable, writable, write_text
from .graph import Executor, WorkflowError, describe, is_prompt, load, object_info, to_prompt, validate
from .graph.reference import explained, indented, reference
from .graph.spelling import class_names, did_you_mean, find_class
from .graph.workflow.layout import Group, to_workflow
from .graph.workflow.overrides import OverrideError, apply
from .graph.workflow.write_back import write_back
from .hosts.current import current_host, hosted_by
from .hosts.device import choose_device
from .hosts.events import EventHost
from .hosts.host import Host
from .hosts.model_paths import ModelPaths
from .hosts.notify import LONGEST, Notifier
from .hosts.processes import ONE, Processes, join
from .importing import simpletuner
from .nodes.preflight import Failing, preflight
from .runs.clean import clean
from .runs.run_folder import facts_in, versions
from .sweeps import schedule
from .sweeps.grid import variants
from .sweeps.outcome import conclude
from .sweeps.sweep import Sweep

WRONG_INPUT = 2

TRAINER = "RolloutOptimizerStep"

ROOT = Path(__file__).resolve().parent

Hosted = Callable[[Executor, threading.Event], AbstractContextManager[None]]


class Refused(Exception):
    """The input is wrong; each line of the message says what, where and how to mend it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser(
        __version__,
        run=run_command,
        validate=validate_command,
        convert=convert_command,
        nodes=nodes_command,
        serve=serve_command,
        import_config=import_command,
        clean=clean_command,
        sweep=sweep_command,
    ).parse_args(arguments)
    mute_libraries()
    with lasting_output(), warnings_told():
        try:
            return options.command(options)
        except (Refused, WorkflowError, OverrideError) as error:
            for line in str(error).splitlines():
                print(f"error: {line}", file=sys.stderr)
            return WRONG_INPUT
        except KeyboardInterrupt:  # where no run is under way that would save first
            print("stopped", file=sys.stderr)
            return STOPPED


def read(
    options: argparse.Namespace, warn: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The workflow for the canvas and the prompt it makes, both with the changes of the command line.

    ``warn`` is told what of the workflow could not be read. There is no workflow where the file holds none, or where a
    change cannot be shown on the canvas.
    """
    resumed, step = folder_of_run(options) if options.resume else (None, "")
    path = options.workflow or (resumed and resumed / "workflow.json")
    if path is None:
        raise Refused("name a workflow file, or a run to go on with: --resume RUN")
    workflow = load(path)
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    prompt = to_prompt(workflow, definitions, warn=warn)
    overrides = [*options.overrides, *shorthands(options.seed, resumed, step, prompt)]
    changed = apply(prompt, definitions, overrides)
    return None if is_prompt(workflow) else write_back(workflow, definitions, prompt, changed), changed


def shorthands(seed: int | None, resumed: Path | None, step: str, prompt: dict[str, Any]) -> list[str]:
    """What --seed and --resume are short for. Raises Refused where they would change nothing, or too much."""
    trainers = [node_id for node_id, node in prompt.items() if node.get("class_type") == TRAINER]
    if seed is not None and not trainers:
        raise Refused("--seed: the workflow has no Optimizer Step, so nothing is trained")
    if resumed and len(trainers) != 1:
        raise Refused(f"--resume: the workflow has {len(trainers)} Optimizer Steps: use --set NODE.resume=RUN")
    if resumed and seed is not None and seed != (own := facts_in(resumed).get("seed", seed)):
        raise Refused(f"--seed {seed}: {resumed.name} goes on with its own seed, {own}: leave out --seed")
    seeds = [f"{node_id}.seed={seed}" for node_id in trainers if seed is not None]
    return seeds + ([f"{trainers[0]}.resume={resumed}{step}"] if resumed else [])


def folder_of_run(options: argparse.Namespace) -> tuple[Path, str]:
    """The full path of the run that --resume names, as a folder or by its name, and ``@STEP`` if one is named.

    Raises Refused if there is no such run.
    """
    name, at, step = options.resume.rpartition("@")
    for run, end in ((options.resume, ""), *([(name, f"@{step}")] if at and step.isdecimal() else [])):
        places = (Path(run), options.output / "rollout" / run)
        found = next((place for place in places if (place / "run.json").is_file()), None)
        if found is not None:
            return found.resolve(), end
    raise Refused(f"--resume {options.resume}: neither {places[0]} nor {places[1]} is the folder of a run")


def checked(prompt: dict[str, Any]) -> Any:
    validation = validate(prompt, NODE_CLASS_MAPPINGS)
    problems = describe(validation, prompt)
    if problems:
        raise Refused("\n".join(problems))
    return validation


def validate_command(options: argparse.Namespace) -> int:
    with looking(options):
        _, prompt = read(options)
        validation = checked(prompt)
        print(f"{options.workflow}: {len(prompt)} nodes, {len(validation.outputs)} outputs, all valid")
        lines = preflight(validation.prompt, data=options.data)
    failing = [line for line in lines if isinstance(line, Failing)]
    for line in lines:
        if line not in failing:
            print(line)
    if failing:
        raise Refused("\n".join(failing))
    return 0


@contextmanager
def looking(options: argparse.Namespace) -> Iterator[None]:
    """Nodes are asked here for what there is to choose from: they look where the run will."""
    host = Host()
    host.output_folder, host.models = options.output.resolve(), model_paths(options)
    with hosted_by(host):
        yield


def model_paths(options: argparse.Namespace) -> ModelPaths:
    """Models beside the output folder, and beside us."""
    homes = (options.output.resolve().parent / "models", Path("models").resolve())
    try:
        return ModelPaths.read(homes, options.extra_model_paths)
    except ValueError as error:
        raise Refused(f"--extra-model-paths: {error}") from None


def convert_command(options: argparse.Namespace) -> int:
    def warn(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr, flush=True)

    _, prompt = read(options, warn)
    validation = validate(prompt, NODE_CLASS_MAPPINGS)
    for line in describe(validation, prompt) if validation.missing else ():
        warn(line)
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
    found = find_class(options.node, definitions)
    if found is None:
        hint = did_you_mean(options.node, class_names(definitions)) or "`comfyui-rollout nodes` lists them"
        raise Refused(f"there is no node {options.node!r}: {hint}")
    print(explained(definitions[found]))
    return 0


def import_command(options: argparse.Namespace) -> int:
    if options.workflow.is_dir():
        raise Refused(f"{options.workflow}: is a folder; name a file with -o")
    if options.workflow.exists() and not options.force:
        raise Refused(f"{options.workflow}: exists already; name another file with -o, or overwrite it with --force")
    try:
        imported = simpletuner.import_config(simpletuner.read_files(options.config))
    except ValueError as error:
        raise Refused(str(error)) from None
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    groups = [Group(title, members) for title, members in imported.frames.items()]
    workflow = to_workflow(imported.prompt, definitions, groups=groups, note=imported.note, room=simpletuner.ROOM)
    workflow["extra"]["simpletuner"] = imported.kept
    try:
        write_text(options.workflow, json.dumps(workflow, indent=1, ensure_ascii=False) + "\n")
    except (OSError, ValueError) as error:
        raise Refused(f"{options.workflow}: {error}") from None
    print(f"{options.workflow}: {len(imported.prompt)} nodes\n\n{imported.report.text()}")
    problems = describe(validate(imported.prompt, NODE_CLASS_MAPPINGS), imported.prompt)
    if problems:
        print("\n".join(["", "As it is, it cannot run:", *(f"  - {problem}" for problem in problems)]))
    return 0


def clean_command(options: argparse.Namespace) -> int:
    removed = clean(options.output)
    for path in removed:
        print(f"removed {path}")
    print(f"{options.output}: {len(removed)} leftovers of programs that were killed")
    return 0


def run_command(options: argparse.Namespace) -> int:
    with looking(options):
        workflow, prompt = read(options)
        validation = checked(prompt)
    try:
        writable(options.output)
    except Unwritable as error:
        raise Refused(f"--output: {error}") from None
    processes = join(chosen_device(options))
    if processes.count > 1 and options.watch:
        raise Refused("--watch: several processes train, and none is watched; watch the run from `serve`")
    notifier = Notifier(options.notify if processes.leads else "")
    stop = Stop()
    hosted = hosting(options, notifier, stop, watching=options.watch, processes=processes)
    pnginfo = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
    if not processes.leads:
        terminal = Terminal(prompt, TRAINER, display_name, options.output)
        return run_with_others(validation, pnginfo, hosted, stop, terminal)
    with stopping(stop), Terminal(prompt, TRAINER, display_name, options.output) as terminal:
        if options.watch:
            result = watched_run(options, hosted, validation, pnginfo, terminal, stop)
        else:
            executor = Executor(NODE_CLASS_MAPPINGS)
            with hosted(executor, stop):
                result = executor.run(
                    validation.prompt, outputs=validation.outputs, extra_data=pnginfo, listener=terminal, interrupt=stop
                )
    code = terminal.conclude(result, options.traceback)
    notifier.wait()
    return code


def sweep_command(options: argparse.Namespace) -> int:
    sweep = planned_sweep(options)
    numbers, stop, failed = [] if options.only_table else sweep.missing(), Stop(), 0
    print(f"{sweep.folder}: {len(sweep.variants)} runs, {len(numbers)} to do", flush=True)
    try:
        with stopping(stop):
            for done, (number, code) in enumerate(scheduled(sweep, numbers, options, stop), 1):
                failed += code != 0
                how = "finished" if code == 0 else f"ended with {code}: see {sweep.folder / 'jobs'}"
                what = ", ".join(sweep.variants[number])
                print(f"[{done}/{len(numbers)}] {sweep.run_name(number)} {what}: {how}", flush=True)
                conclude(sweep)
        print(conclude(sweep))
    except ValueError as error:
        raise Refused(str(error)) from None
    return STOPPED if stop.is_set() else FAILED if failed else 0


def planned_sweep(options: argparse.Namespace) -> Sweep:
    """The sweep that the options describe, every variant of it checked. Raises Refused where one is wrong."""
    workflow = load(options.workflow)
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    prompt = to_prompt(workflow, definitions)
    trainers = [node_id for node_id, node in prompt.items() if node.get("class_type") == TRAINER]
    if len(trainers) != 1:
        raise Refused(f"sweep: the workflow has {len(trainers)} Optimizer Steps, and a sweep needs one")
    name = options.name or options.workflow.stem
    trouble = trouble_with_name(name)
    if trouble:
        raise Refused(f"--name {name!r}: {trouble}")
    common = [*options.overrides, *shorthands(options.seed, None, "", prompt)]
    try:
        chosen = variants(options.axes)
        for variant in chosen:
            checked(apply(prompt, definitions, [*common, *variant]))
        return Sweep.planned(options.output.resolve(), name, workflow, trainers[0], common, chosen)
    except ValueError as error:
        raise Refused(str(error)) from None


def scheduled(sweep: Sweep, numbers: list[int], options: argparse.Namespace, stop: Stop) -> Iterator[schedule.Ended]:
    """Run these variants where the options say; yields each as it ends. Raises ValueError where that cannot be."""
    devices = options.devices or ["auto"]
    if not options.cluster:
        for device in devices:
            choose_device(device)
        return schedule.on_this_machine(sweep, numbers, devices, stop)
    wrong = next((setting for setting in options.settings if "=" not in setting), None)
    if wrong is not None:
        raise ValueError(f"--job {wrong}: write NAME=VALUE, as in gpus_per_node=1")
    settings = {name: as_number(value) for name, _, value in (each.partition("=") for each in options.settings)}
    return schedule.on_a_cluster(sweep, numbers, options.cluster, settings, devices[0], print)


def as_number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def run_with_others(validation: Any, extra_data: Any, hosted: Hosted, stop: Stop, terminal: Terminal) -> int:
    """Train as the first process does, which shows and writes all: in silence, unless this one makes all fail."""
    trainers = [node_id for node_id, node in validation.prompt.items() if node["class_type"] == TRAINER]
    executor = Executor(NODE_CLASS_MAPPINGS)
    with stopping(stop, told=False), hosted(executor, stop):
        result = executor.run(validation.prompt, outputs=trainers, extra_data=extra_data, interrupt=stop)
        told = result.status != "error" or current_host().processes.is_cause
    return terminal.conclude(result, traceback=False) if told else FAILED


def chosen_device(options: argparse.Namespace) -> str:
    try:
        return choose_device(options.device)
    except ValueError as error:
        raise Refused(f"--device: {error}") from None


def hosting(
    options: argparse.Namespace, notifier: Notifier, ending: Stop, watching: bool = True, processes: Processes = ONE
) -> Hosted:
    """What joins the graph runner and the training: in its context, runs report to an executor and obey its stop.

    ``ending`` knows how long the program still has. When the context is left, ``notifier`` is told of the runs that
    have ended in it.
    """
    output, device, models = options.output.resolve(), chosen_device(options), model_paths(options)

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
            seconds_left=ending.seconds_left,
            watching=lambda: watching,
            waits_for_room=not options.no_wait,
            models=models,
            processes=processes,
        )
        try:
            with hosted_by(host):
                yield
        finally:
            for run in host.runs:  # after what comes behind the training: a LoRA is saved by now
                notifier.tell(run)

    return hosted


def serve_command(options: argparse.Namespace) -> int:
    from .server import leave_within, serve_until_stopped

    notifier, ending = Notifier(options.notify), Stop()
    with ExitStack() as stack:
        studio, app, opened, address = studio_on(options, hosting(options, notifier, ending), stack, keeps_jobs=True)
        studio.folders.make()
        model_paths(options).make()

        def ready() -> None:
            print(f"ComfyUI-Rollout is at {address}", flush=True)
            if studio.left_behind:
                print("a job was interrupted when the server ended: go on with its run in the Runs tab", flush=True)
            if studio.waiting_again:
                print(
                    f"{len(studio.waiting_again)} jobs of the last time wait again: the queue panel cancels them",
                    flush=True,
                )
            if options.open:
                webbrowser.open(address)

        serve_until_stopped(app, opened, ready, ending.ask)
    notifier.wait(min(LONGEST, max(0.0, ending.seconds_left())))
    leave_within()
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


def studio_on(options: argparse.Namespace, hosted: Hosted, stack: ExitStack, keeps_jobs: bool = False) -> Any:
    """(studio, application, listening socket, address) as the options want them; what is temporary goes with the stack.

    Raises Refused where the server cannot start.
    """
    from . import server

    output = options.output.resolve()
    is_private = server.is_loopback(options.listen) and not options.allowed_hosts
    token = options.token or (None if is_private or options.no_auth else server.new_token())
    try:
        access = server.Access.on(options.listen, token, options.allowed_hosts)
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
        reached = " or ".join([options.listen, *options.allowed_hosts])
        print(f"warning: whoever reaches {reached} can use this server and read its output", file=sys.stderr)
    nodes = (NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    device = chosen_device(options)
    looking = partial(hosted, Executor(NODE_CLASS_MAPPINGS), threading.Event())
    studio = server.Studio(*nodes, folders, hosted, device, versions(), keeps_jobs=keeps_jobs, looking=looking)
    app = server.application(studio, access, survey, options.pictures)
    return studio, app, opened, server.address_of(opened, token)


def display_name(class_type: str) -> str:
    return NODE_DISPLAY_NAME_MAPPINGS.get(class_type, class_type)


if __name__ == "__main__":
    sys.exit(main())
