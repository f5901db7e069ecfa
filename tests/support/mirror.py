"""Where each module's tests are: ``a/b.py`` is tested by ``tests/a/test_b.py``, or by a file that is named here."""

from fnmatch import fnmatch

HARNESS = {"browser", "faults", "host", "recorded", "support", "web"}
"""Folders of tests that mirror no room: whole programs, inside ComfyUI, in a browser, killed; and what tests share."""

TOGETHER = {
    # Catalogues: each file is one of a kind, and all are tried by the same tests.
    "diffusion/solvers/test_solvers.py": ("diffusion/solvers/*.py",),
    "models/families/test_families.py": ("models/families/*.py",),
    "server/test_boot.py": ("server/routes/*.py", "server/application.py", "server/studio.py"),
    # Parts that only make sense together: a prompt that runs, clients that hear of it, a model that is recognised.
    "graph/running/test_execute.py": ("graph/running/order.py", "graph/running/run.py"),
    "graph/running/test_signature.py": ("graph/running/cache.py",),
    "graph/running/test_dynamic_prompt.py": ("graph/running/cache.py",),
    "graph/checking/test_validate.py": ("graph/checking/validation_errors.py",),
    "graph/workflow/test_convert.py": ("graph/workflow/lenient.py",),
    "importing/simpletuner/test_graph.py": ("importing/simpletuner/draft.py",),
    "importing/simpletuner/test_changes.py": ("importing/simpletuner/report.py",),
    "models/loading/test_recognise.py": tuple(
        f"models/loading/{name}.py" for name in ("index", "pretrained", "source")
    ),
    "server/sockets/test_sockets.py": ("server/sockets/audience.py", "server/sockets/client.py"),
    "server/sockets/test_messages.py": ("server/sockets/plain_json.py",),
    "server/routes/test_queue.py": ("server/jobs/worker.py", "server/jobs/job.py"),
    "server/routes/test_files.py": ("server/content/images.py", "server/content/files.py"),
    "server/routes/test_logs.py": ("server/content/logs.py", "server/content/found.py"),
    "server/test_hostile.py": ("server/guard/bodies.py", "server/guard/headers.py"),
    # Whole runs, which nodes wire best.
    "nodes/training/test_bad_steps.py": ("runs/bad_steps.py",),
    "nodes/rollouts/test_inspection.py": ("runs/pictures/inspection.py",),
    "nodes/rollouts/test_loss.py": ("nodes/rollouts/reference.py",),
    "nodes/rollouts/test_rollout.py": ("nodes/rollouts/rolling.py",),
    "training/test_sharing.py": ("hosts/processes.py", "models/sharded.py"),
    "runs/test_checkpoint.py": ("runs/notice.py",),
    "data/shards/test_images.py": ("data/names.py",),
    # Fixtures of another folder are what they need.
    "models/families/test_attention.py": ("models/attention.py",),
    "server/content/test_run_notes.py": ("files/notes.py",),
    # With what only ComfyUI has.
    "host/test_data.py": ("data/native/encoders.py",),
    "host/test_training.py": ("runs/hosted_sampling.py", "nodes/models/hosted.py"),
    # Of the whole program.
    "test_main.py": ("server/content/folders.py",),
}
"""Tests of several modules, or of one in another place: ``{tests: the modules}``, by their names or patterns."""

ASPECTS = {
    "data/encodings/test_pairs.py": "pairs for models that edit, from the folder to the batch",
    "data/reading/test_nasty.py": "a hundred kinds of odd files",
    "graph/test_transcript.py": "a recorded session with a real ComfyUI, on our runner",
    "importing/simpletuner/test_command.py": "the command import-config",
    "models/adapters/test_in_comfyui.py": "LoRA files, loaded by a real ComfyUI",
    "models/families/test_clip_in_comfyui.py": "clip_skip, as a real ComfyUI has it",
    "models/families/test_training_examples.py": "families against diffusers' own training examples",
    "nodes/training/test_memory_options.py": "what saves memory, each with each other",
    "nodes/training/test_out_of_memory.py": "runs whose memory is too small",
    "nodes/training/test_validation.py": "runs with a validation loss",
    "runs/processes/test_launchers.py": "launchers, as a person types them",
    "server/test_transcript.py": "a recorded session with a real ComfyUI, on our server",
}
"""Tests of something that runs through many modules: ``{tests: what}``."""

OLD_NAMES = {"training/data.py", "training/models.py", "graph/running/interrupted.py", "hosts/interrupted.py"}
"""Modules of a name alone, with nothing to go wrong."""


def modules(root, rooms):
    paths = (path for room in rooms for path in (root / room).rglob("*.py") if path.name != "__init__.py")
    return {path.relative_to(root).as_posix() for path in paths}


def test_files(root):
    return {path.relative_to(root / "tests").as_posix() for path in (root / "tests").rglob("test_*.py")}


def own_tests(module):
    """``a/test_b.py`` of ``a/b.py``."""
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}"


def tests_of(module, tests, together):
    """The files that test a module: its own, and those that are named for it."""
    named = {file for file, patterns in together.items() if any(fnmatch(module, pattern) for pattern in patterns)}
    return sorted(tests & ({own_tests(module)} | named))


def untested(modules, tests, together):
    """Modules for which nobody finds a test."""
    return sorted(module for module in modules if not tests_of(module, tests, together))


def unclaimed(modules, tests, together, aspects=()):
    """Tests of which nobody knows what they test."""
    own = {own_tests(module) for module in modules}
    inside = {file for file in tests if "/" in file and file.split("/")[0] not in HARNESS}
    return sorted(inside - own - together.keys() - set(aspects))


def outdated(modules, tests, together):
    """What is named here and is not there any more."""
    patterns = {pattern for named in together.values() for pattern in named}
    gone = {pattern for pattern in patterns if not any(fnmatch(module, pattern) for module in modules)}
    return sorted(gone | (together.keys() - tests))
