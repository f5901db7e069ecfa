"""What may be typed on the command line; the commands themselves are functions of ``__main__``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

Command = Callable[[argparse.Namespace], int]


def parser(
    version: str,
    *,
    run: Command,
    validate: Command,
    convert: Command,
    nodes: Command,
    serve: Command,
    import_config: Command,
    clean: Command,
    sweep: Command,
) -> argparse.ArgumentParser:
    """The parser; what it finds has the chosen function as ``command``."""
    top = argparse.ArgumentParser("comfyui-rollout", description="Train diffusion models with node graphs.")
    top.add_argument("--version", action="version", version=version)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Command, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=function)
        return added

    runs = command("run", run, "Run a workflow file without a browser.")
    validates = command("validate", validate, "Check a workflow file without running it.")
    converts = command("convert", convert, "Print a workflow file in the format that ComfyUI executes.")
    lists = command("nodes", nodes, "List the nodes, or explain one of them.")
    serves = command("serve", serve, "Open the graph editor in a browser.")
    imports = command("import-config", import_config, "Make a workflow of a SimpleTuner configuration.")
    cleans = command("clean", clean, "Remove what programs that were killed have left half written.")
    sweeps = command("sweep", sweep, "Run a workflow file once for each combination of some settings.")
    for added in (runs, validates, converts, sweeps):
        add_workflow(added, may_be_left_out=added is runs)
    validates.add_argument(
        "--data", action="store_true", help="look into the data sets too, and say what training would do with them"
    )
    for added in (runs, serves):
        add_server(added)
    add_output(validates)
    add_models(validates)
    serves.add_argument("--open", action="store_true", help="open the browser, too")
    runs.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with an earlier run, exactly where it was: its name or its folder; RUN@250 goes back to its state "
        "after step 250",
    )
    runs.add_argument("--watch", action="store_true", help="show the run in a browser while it goes")
    runs.add_argument("--traceback", action="store_true", help="show where in the code a run failed")
    add_output(cleans)
    add_grid(sweeps)
    imports.add_argument("config", type=Path, help="SimpleTuner's config.json")
    imports.add_argument(
        "-o", dest="workflow", type=Path, default=Path("workflow.json"), metavar="FILE",
        help="the workflow to write (workflow.json)",
    )  # fmt: skip
    imports.add_argument("--force", action="store_true", help="overwrite a workflow that is there")
    lists.add_argument("node", nargs="?", help="class or display name")
    lists.add_argument("--markdown", action="store_true", help="all nodes with all inputs, as docs/nodes.md")
    return top


def add_workflow(command: argparse.ArgumentParser, may_be_left_out: bool) -> None:
    """A workflow file, and changes to it."""
    described = "workflow file (.json), or a picture or weights file that holds one"
    if may_be_left_out:
        command.add_argument("workflow", type=Path, nargs="?", help=f"{described}; with --resume the run's own")
    else:
        command.add_argument("workflow", type=Path, help=described)
    command.set_defaults(resume=None)
    command.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="NODE.INPUT=VALUE",
        help="change an input; NODE is an id, a title or a class, e.g. OptimizerStep.steps=100",
    )  # fmt: skip
    command.add_argument("--seed", type=int, help="the training seed: short for --set OptimizerStep.seed=N")


def add_grid(command: argparse.ArgumentParser) -> None:
    """Which settings are tried, and who runs them."""
    command.add_argument(
        "--grid", dest="axes", action="append", default=[], metavar="NODE.INPUT=VALUE,VALUE",
        help="an input and the values that it takes in turn, e.g. Rollout.probability=0,0.25,0.5; with several --grid "
        "all combinations are run; a value with a comma stands in double quotes",
    )  # fmt: skip
    command.add_argument("--name", help="of the sweep and its runs (the workflow's); one of this name is gone on with")
    add_output(command)
    command.add_argument(
        "--device", dest="devices", action="append", metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps or auto (auto); name several, and one run goes on each at a time",
    )  # fmt: skip
    command.add_argument(
        "--cluster", choices=("slurm", "local", "debug"),
        help="leave the runs to submitit, which starts them as SLURM jobs, or as processes of this machine all at once",
    )  # fmt: skip
    command.add_argument(
        "--job", dest="settings", action="append", default=[], metavar="NAME=VALUE",
        help="with --cluster: a setting of submitit, e.g. gpus_per_node=1, timeout_min=240, slurm_partition=gpu",
    )  # fmt: skip
    command.add_argument("--only-table", action="store_true", help="run nothing, and say how the sweep stands")


def add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (output)")


def add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--extra-model-paths", type=Path, action="append", default=[], metavar="FILE",
        help="further folders of models, as in ComfyUI's extra_model_paths.yaml; without it the file of that name "
        "beside the output folder is read, if it is there",
    )  # fmt: skip


def add_server(command: argparse.ArgumentParser) -> None:
    """Where a run works, and where it can be watched."""
    add_output(command)
    add_models(command)
    command.add_argument(
        "--no-wait", action="store_true", help="fail where the disk is full, instead of waiting until there is room"
    )
    command.add_argument(
        "--notify", default="", metavar="COMMAND",
        help="start this when a training has ended, however; ROLLOUT_RUN, ROLLOUT_STATUS (finished, interrupted, "
        "failed), ROLLOUT_FOLDER and ROLLOUT_MESSAGE are in its environment",
    )  # fmt: skip
    command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (auto)")
    command.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 for other machines too (127.0.0.1)"
    )
    command.add_argument("--port", type=int, default=8188, help="0 takes any free one (8188)")
    command.add_argument(
        "--allow-host", dest="allowed_hosts", action="append", default=[], metavar="NAME",
        help="a further name of this server, as a reverse proxy passes it on, e.g. studio.example",
    )  # fmt: skip
    command.add_argument(
        "--user-directory", type=Path, metavar="DIR", help="where saved workflows go (user, beside the output)"
    )
    command.add_argument(
        "--token", help="what browsers must know; made up where --listen or --allow-host let others in"
    )
    command.add_argument("--no-auth", action="store_true", help="let in whoever reaches the address")
