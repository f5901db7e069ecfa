"""Faults done to a training on purpose: kills, power cuts, signals, tampering. Each is a forked child of its own.

The training is small and has all that a state can hold: dropout, averaged weights, a learning rate that changes at
every step, noise drawn by a node, copies on the way, and something that a node keeps.
"""

import contextlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.models.model import Model
from comfyui_rollout.runs.fit import fit
from comfyui_rollout.runs.looks import Checkpoint
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training import state as states
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Stream
from safetensors.torch import load_file
from torch import nn

STEPS, EVERY = 14, 3
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


# The training


class Network(nn.Sequential):
    def __init__(self, seed=1):
        with global_seed(seed):
            super().__init__(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))

    def save_config(self, folder):
        (Path(folder) / "config.json").write_text("{}")


class Plain(Model):
    def __call__(self, x, timestep, conditioning):
        return self.network(x)


class Memory:
    """What a node keeps from step to step."""

    def __init__(self):
        self.total = torch.zeros(3)

    def state_dict(self):
        return {"total": self.total, "words": "kept"}

    def load_state_dict(self, state):
        self.total = state["total"].clone()


def streams():
    network = Network()
    model = Stream(lambda step: step.keep(lambda: Plain(network)), node_id="model", title="Model")

    def loss(step, model):
        points = torch.randn(8, 4, generator=step.generator())
        memory = step.keep(Memory)
        losses = (model.network(points) - points[:, :3].sin()).square().mean(1)
        memory.total = 0.9 * memory.total + losses.detach()[:3]
        return losses * (1 + 0.1 * memory.total.mean())

    return Stream(loss, {"model": model}, "loss", "Loss"), model


def train(folder=None, resume=None, **options):
    """One run in a new folder ``folder_00001``, or on from the state ``resume``; all of it within seconds."""
    torch.set_num_threads(1)
    loss, model = streams()
    settings = OptimizerSettings("adamw", learning_rate=0.01, lr_schedule="cosine", warmup_steps=3)
    looks = [Checkpoint(EVERY, 2, keep_states=2), *options.pop("looks", ())]
    options = {"steps": STEPS, "seed": 5, "device": "cpu", "ema_decay": 0.9, **options}
    return fit(loss, model, settings, folder=folder, resume=resume, looks=looks, **options)


def outcome(folder):
    """All that must be the same, to the bit, however often a run was disturbed."""
    final = states.find_state(folder)
    model = load_file(folder / "model" / "diffusion_pytorch_model.safetensors")
    facts = json.loads((folder / "run.json").read_text())
    rows = [(row["step"], row["loss"], row["learning_rate"], row.get("spike")) for row in read_metrics(folder)]
    return {
        "step": final.step,
        "tensors": {name: value.numpy().tobytes() for name, value in load_file(final.path).items()},
        "model": {name: value.numpy().tobytes() for name, value in model.items()},
        "rows": rows,
        "status": facts["status"],
        "copies": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "left over": sorted(path.name for path in folder.rglob(".*")),
    }


# Children


def forked(work, seconds=None, kill=signal.SIGKILL, words=None):
    """Run ``work()`` in a forked child; returns its exit code, negative for a signal.

    After so many ``seconds``, counted from its start, it gets the signal ``kill``. What it prints goes into ``words``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            place = os.open(words or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(place, stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            code = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, kill)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


class Promise:
    """The newest step whose state a child has been told is kept; it outlives the child."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 16)

    def keep(self):
        """In the child: note each state whose saving has returned."""
        save = states.Snapshot.save

        def noted(shot, *given, **named):
            saved = save(shot, *given, **named)
            self.memory[:8] = struct.pack("q", saved.step)
            return saved

        states.Snapshot.save = noted

    @property
    def step(self):
        return struct.unpack("q", self.memory[:8])[0]

    def count(self, number):
        self.memory[8:16] = struct.pack("q", number)

    @property
    def counted(self):
        return struct.unpack("q", self.memory[8:16])[0]


def on_each_change(act):
    """In a child: ``act(event)`` before each change that this program makes to files, and before each flush."""
    busy = False
    real = os.fsync

    def seen(event):
        nonlocal busy
        if not busy:
            busy = True
            try:
                act(event)
            finally:
                busy = False

    def hook(event, given):
        if event in CHANGES or (event == "open" and isinstance(given[2], int) and given[2] & WRITING):
            seen(event)

    def fsync(opened):
        seen("os.fsync")
        real(opened)

    os.fsync = fsync
    sys.addaudithook(hook)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_change(number, promise, do):
    """In a child: ``do`` it before the change of that number; the promise hears of each."""
    seen = 0

    def act(event):
        nonlocal seen
        seen += 1
        promise.count(seen)
        if seen == number:
            do()

    on_each_change(act)


def dying_at(number, promise):
    """In a child: be killed before the change of that number."""
    at_change(number, promise, die)


# A power cut


class Disk:
    """What of a folder would be on the disk if the power were cut now. For a child that works in it.

    A file is there with what it had when it was flushed; of what came later there is nothing, a part, or all. Of names
    there are two kinds of file systems. ``strict``: a folder has the names that it had when it was flushed itself.
    ``ordered``: all changes up to some moment since the last flush of anything happened, and none after it.
    """

    def __init__(self, root, strict, seed):
        self.root, self.strict, self.random = Path(root), strict, random.Random(seed)
        self.contents, self.names, self.held = {}, {}, {}
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
        first = self.tree()
        self.names |= first
        for _, number in self.files(first):
            self.contents[number] = self.content(number)
        self.since = [first]
        self.real_fsync = os.fsync

    def tree(self):
        """``{folder: {name: (number, is folder)}}`` by inodes, each of which is held, so that none is used again."""
        found, waiting = {}, [self.root]
        while waiting:
            folder = waiting.pop()
            inside = {}
            with os.scandir(folder) as entries:
                for entry in entries:
                    number, is_folder = entry.inode(), entry.is_dir(follow_symlinks=False)
                    inside[entry.name] = (number, is_folder)
                    if number not in self.held:
                        self.held[number] = os.open(entry.path, os.O_PATH)
                    if is_folder:
                        waiting.append(Path(entry.path))
            found[os.stat(folder).st_ino] = inside
        return found

    def files(self, tree):
        return [
            (name, number) for inside in tree.values() for name, (number, is_folder) in inside.items() if not is_folder
        ]

    def content(self, number):
        with open(f"/proc/self/fd/{self.held[number]}", "rb") as file:
            return file.read()

    def change(self, event):
        """Before each change: what is there now is the work of those before."""
        if event != "os.fsync":
            self.since.append(self.tree())

    def flush(self, opened):
        """A flush has happened."""
        now, number = self.tree(), os.fstat(opened).st_ino
        self.since = [now]
        if number in now:
            self.names[number] = now[number]
        elif number in self.held:
            self.contents[number] = self.content(number)

    def watch(self):
        """In a child: follow all that it does."""
        on_each_change(self.change)
        inner = os.fsync

        def fsync(opened):
            inner(opened)
            self.flush(opened)

        os.fsync = fsync

    def cut(self, target):
        """Write what is on the disk into the folder ``target``."""
        names = self.names if self.strict else self.random.choice([*self.since, self.tree()])
        self._write(Path(target), os.stat(self.root).st_ino, names)

    def _write(self, place, number, names):
        place.mkdir(parents=True, exist_ok=True)
        for name, (inner, is_folder) in names.get(number, {}).items():
            if is_folder:
                self._write(place / name, inner, names)
            else:
                (place / name).write_bytes(self._on_disk(inner))

    def _on_disk(self, number):
        flushed, now = self.contents.get(number, b""), self.content(number)
        if not now.startswith(flushed):
            return flushed
        return now[: self.random.choice([len(flushed), self.random.randint(len(flushed), len(now)), len(now)])]


def cut_at(number, disk, target, promise):
    """In a child: cut the power before the change of that number."""
    seen = 0
    change = disk.change

    def act(event):
        nonlocal seen
        change(event)
        seen += 1
        promise.count(seen)
        if seen == number:
            disk.cut(target)
            die()

    disk.change = act
    disk.watch()


# Trials


class Trials:
    """A folder to work in, and what an undisturbed run comes to."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        train(self.folder / "warm")  # what is imported on the way is there for all children
        begun, promise = time.perf_counter(), Promise()

        def work():
            dying_at(-1, promise)
            train(self.folder / "whole")

        assert forked(work, words=self.folder / "words.txt") == 0, (self.folder / "words.txt").read_text()
        self.seconds, self.changes = time.perf_counter() - begun, promise.counted
        self.whole = outcome(self.folder / "whole_00001")
        self.number = 0

    def place(self):
        self.number += 1
        place = self.folder / f"trial_{self.number:04d}"
        place.mkdir()
        return place

    def cut_power_of_ext4(self, number):
        """The power of a real file system is cut before a change to a file: its journal says what is left."""
        place, promise = self.place(), Promise()
        before, after = place / "before", place / "after"
        with Ext4(place / "disk.img", before) as disk:

            def work():
                promise.keep()
                copying_at(number, disk, place / "cut.img", promise)
                train(before / "run")
                shutil.copyfile(disk.image, place / "cut.img")

            code = forked(work, words=place / "words.txt")
        assert code in (-signal.SIGKILL, 0), (place / "words.txt").read_text()
        with Ext4(place / "cut.img", after, new=False):
            outcome = self.finish(after, promise.step, clean=False)
        shutil.rmtree(place)
        return outcome

    def finish(self, place, promised, *, clean=True):
        """Resume what is left, if a state was promised, or begin anew. ``"lost: why"``, or what was survived."""
        folder, words = place / "run_00001", place / "words.txt"
        begins = False
        try:
            state = states.find_state(folder)
            if state.step < promised:
                return f"lost: the state after step {promised} was kept, and that after {state.step} is found"
        except ValueError as error:
            if promised:
                return f"lost: {error}"
            begins = True

        def work():
            train(place / "run") if begins else train(resume=states.find_state(folder))

        if forked(work, words=words) != 0:
            return f"lost: {words.read_text()[-400:]}"
        newest = max(place.glob("run_*")) if begins else folder
        found = outcome(newest)
        wrong = [name for name in self.whole if name in found and found[name] != self.whole[name]]
        if wrong:
            return f"lost: {', '.join(wrong)} differ"
        if clean:
            shutil.rmtree(place)
        return "nothing was kept yet" if begins else "resumed"

    def kill_at_change(self, number):
        """Killed before a change to a file."""
        place, promise = self.place(), Promise()

        def work():
            promise.keep()
            dying_at(number, promise)
            train(place / "run")

        code = forked(work, words=place / "words.txt")
        assert code in (-signal.SIGKILL, 0), (place / "words.txt").read_text()
        return self.finish(place, promise.step)

    def kill_twice(self, first, second):
        """Killed before a change to a file, and while it is resumed, before the change of that number, once more."""
        place, promise = self.place(), Promise()

        def work():
            promise.keep()
            dying_at(first, promise)
            train(place / "run")

        def again():
            promise.keep()
            dying_at(second, promise)
            train(resume=states.find_state(place / "run_00001"))

        for step in (work, again):
            code = forked(step, words=place / "words.txt")
            assert code in (-signal.SIGKILL, 0), (place / "words.txt").read_text()
        return self.finish(place, promise.step)

    def kill_after(self, seconds):
        """Killed at any moment."""
        place, promise = self.place(), Promise()

        def work():
            promise.keep()
            train(place / "run")

        forked(work, seconds, words=place / "words.txt")
        return self.finish(place, promise.step)

    def cut_power(self, number, strict, seed):
        """The power is cut before a change to a file; the run goes on from what was on the disk."""
        place, promise = self.place(), Promise()
        before, after = place / "before", place / "after"
        before.mkdir()

        def work():
            disk = Disk(before, strict, seed)
            promise.keep()
            cut_at(number, disk, after, promise)
            train(before / "run")
            disk.cut(after)

        code = forked(work, words=place / "words.txt")
        assert code in (-signal.SIGKILL, 0), (place / "words.txt").read_text()
        shutil.rmtree(before)
        after.mkdir(exist_ok=True)
        found = self.finish(after, promise.step)
        if not found.startswith("lost"):
            shutil.rmtree(place)
        return found


# Tampering: a run that was stopped after step 7, with states after steps 6 and 7


class Ext4:
    """A small ext4 disk in a file, mounted at ``place``: a copy of the file is what a power cut would leave of it.

    Raises OSError where none may be made or mounted.
    """

    def __init__(self, image, place, new=True):
        self.image, self.place = Path(image), Path(place)
        self.place.mkdir(exist_ok=True)
        if new:
            with self.image.open("wb") as file:
                file.truncate(24 << 20)
            self._call("mkfs.ext4", "-q", "-F", str(self.image))
        self._call("mount", "-t", "ext4", "-o", "loop", str(self.image), str(self.place))

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._call("umount", str(self.place))

    def _call(self, *command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"{command[0]}: {done.stderr.strip()}")


def copying_at(number, disk, target, promise):
    """In a child: copy the whole disk, as it is, before the change of that number; then be killed."""

    def copy_and_die():
        shutil.copyfile(disk.image, target)
        die()

    at_change(number, promise, copy_and_die)


def stopped_run(folder):
    """A run that was stopped in the middle, and another of the same shape beside it."""
    from comfyui_rollout.hosts.host import Interrupted
    from comfyui_rollout.runs.session import Look

    class Stop(Look):
        def after(self, session):
            if session.reached == 7:
                raise Interrupted

    for seed in (5, 6):
        with contextlib.suppress(Interrupted):
            train(folder / "run", seed=seed, looks=[Stop()])
    return folder / "run_00001"


def rewritten(change):
    """A case: the newest state, with its tensors or its metadata changed and a whole header around them."""

    def tamper(run):
        from safetensors import safe_open
        from safetensors.torch import save_file

        path = states.find_state(run).path
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata())
        tensors = {name: value.clone() for name, value in load_file(path).items()}
        tensors, metadata = change(tensors, metadata) or (tensors, metadata)
        save_file(tensors, path, metadata)

    return tamper


def bytes_of(change):
    """A case: the bytes of the newest state's file, changed."""

    def tamper(run):
        path = states.find_state(run).path
        path.write_bytes(bytes(change(bytearray(path.read_bytes()))))

    return tamper


def flipped(share):
    def change(content):
        content[min(len(content) - 1, int(share * len(content)))] ^= 1 << int(share * 100) % 8
        return content

    return bytes_of(change)


def fact(**changed):
    def change(tensors, metadata):
        metadata["facts"] = json.dumps(json.loads(metadata["facts"]) | changed)

    return rewritten(change)


def dropped(start, all_of_them=False):
    def change(tensors, metadata):
        names = sorted(name for name in tensors if name.startswith(start))
        return {k: v for k, v in tensors.items() if k not in (names if all_of_them else names[:1])}, metadata

    return rewritten(change)


def replaced(change):
    """A case: the first weight, changed."""

    def inner(tensors, metadata):
        name = min(name for name in tensors if name.startswith("weights."))
        tensors[name] = change(tensors[name]).contiguous()

    return rewritten(inner)


def metadata_without(name):
    def change(tensors, metadata):
        del metadata[name]

    return rewritten(change)


def metadata_with(name, value):
    def change(tensors, metadata):
        metadata[name] = value

    return rewritten(change)


def swapped_names(tensors, metadata):
    """Two tensors of one shape, each under the other's name."""
    one, other = "optimizer.0.weight.exp_avg", "optimizer.0.weight.exp_avg_sq"
    tensors[one], tensors[other] = tensors[other], tensors[one]


def renamed(tensors, metadata):
    tensors["weights.other"] = tensors.pop(min(tensors))


def pointer(text):
    return lambda run: (run / "state" / "state.json").write_text(text)


def as_other_step(run):
    path = states.find_state(run).path
    path.rename(path.with_name("step_000009.safetensors"))
    (run / "state" / "state.json").write_text('{"states": ["step_000009.safetensors"]}')


def older_as_newest(run):
    older, newest = states.states_in(run)
    shutil.copy(older, newest)


def of_another_run(run):
    shutil.rmtree(run / "state")
    shutil.copytree(run.with_name("run_00002") / "state", run / "state")


def newest_of_another_run(run):
    shutil.copy(states.states_in(run.with_name("run_00002"))[-1], states.states_in(run)[-1])


def all_states(change):
    def tamper(run):
        for path in states.states_in(run):
            change(path)

    return tamper


def before(change):
    """A case: the newest state as versions before kept it, changed; there is no checksum to help."""

    def tamper(run):
        from safetensors import safe_open
        from safetensors.torch import save_file

        path = states.find_state(run).path
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
        facts.pop("run")
        tensors = {name: value.clone() for name, value in load_file(path).items()}
        tensors = change(tensors, facts) or tensors
        shutil.rmtree(run / "state")
        (run / "state").mkdir()
        save_file(tensors, run / "state" / "state.safetensors")
        (run / "state" / "state.json").write_text(json.dumps(facts))
        about = json.loads((run / "run.json").read_text())
        about.pop("id")
        (run / "run.json").write_text(json.dumps(about))

    return tamper


def without(start, all_of_them=False):
    def change(tensors, facts):
        names = sorted(name for name in tensors if name.startswith(start))
        return {k: v for k, v in tensors.items() if k not in (names if all_of_them else names[:1])}

    return before(change)


def first_of(start, change):
    def inner(tensors, facts):
        name = min(name for name in tensors if name.startswith(start))
        tensors[name] = change(tensors[name]).contiguous()

    return before(inner)


def with_fact(name, value):
    return before(lambda tensors, facts: facts.update({name: value}))


def run_json(**changed):
    def tamper(run):
        facts = json.loads((run / "run.json").read_text()) | changed
        (run / "run.json").write_text(json.dumps(facts))

    return tamper


def metrics(change):
    def tamper(run):
        path = run / "metrics.jsonl"
        path.write_text(change(path.read_text()))

    return tamper


TAMPERED = {
    **{f"one bit at {share:.0%}": flipped(share) for share in (0, 0.0005, 0.002, 0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6,
                                                              0.7, 0.8, 0.9, 0.95, 0.99, 1)},
    **{f"cut to {share:.0%}": bytes_of(lambda content, share=share: content[: int(share * len(content))])
       for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999)},
    "8 bytes too many": bytes_of(lambda content: content + b"\0" * 8),
    "zeros at the end": bytes_of(lambda content: content[:-512] + b"\0" * 512),
    "zeros at the beginning": bytes_of(lambda content: b"\0" * 512 + content[512:]),
    "text instead": bytes_of(lambda content: b"<html>not found</html>"),
    "a weight dropped": dropped("weights."),
    "all weights dropped": dropped("weights.", True),
    "an average dropped": dropped("averaged."),
    "all averages dropped": dropped("averaged.", True),
    "a moment dropped": dropped("optimizer."),
    "the optimizer dropped": dropped("optimizer.", True),
    "what a node kept dropped": dropped("kept."),
    "a tensor more": rewritten(lambda tensors, metadata: ({**tensors, "weights.more": torch.zeros(1)}, metadata)),
    "a tensor renamed": rewritten(renamed),
    "two moments swapped": rewritten(swapped_names),
    "a weight turned": replaced(lambda value: value.flip(0)),
    "a weight reshaped": replaced(lambda value: value.reshape(1, -1)),
    "a weight in half precision": replaced(lambda value: value.half()),
    "a weight off by the last bit": replaced(lambda value: torch.nextafter(value, value + 1)),
    "a weight that is no number": replaced(lambda value: value * float("nan")),
    "another step": fact(step=8),
    "another seed": fact(seed=9),
    "another optimizer": fact(optimizer="sgd"),
    "other averages": fact(averaged_updates=1),
    "another loss scale": fact(loss_scale={"scale": 2.0}),
    "other kept values": fact(kept={}),
    "another run's id": fact(run="0" * 32),
    "an unknown fact": fact(more=1),
    "no facts": metadata_without("facts"),
    "no checksum": metadata_without("digest"),
    "facts that are no JSON": metadata_with("facts", "{"),
    "facts that are a list": metadata_with("facts", "[]"),
    "another checksum": metadata_with("digest", "0" * 32),
    "the name of another step": as_other_step,
    "the older one as the newest": older_as_newest,
    "the states of another run": of_another_run,
    "the newest of another run": newest_of_another_run,
    "all empty": all_states(lambda path: path.write_bytes(b"")),
    "all gone": all_states(Path.unlink),
    "all cut short": all_states(lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "an empty pointer": pointer(""),
    "half a pointer": pointer('{"states": ["step_0'),
    "a pointer to nothing": pointer('{"states": []}'),
    "a pointer to what is not there": pointer('{"states": ["step_000099.safetensors"]}'),
    "a pointer out of the folder": pointer('{"states": ["../../run_00002/state/step_000007.safetensors"]}'),
    "no pointer": lambda run: (run / "state" / "state.json").unlink(),
    "before: a weight dropped": without("weights."),
    "before: the optimizer dropped": without("optimizer.", True),
    "before: a moment dropped": without("optimizer."),
    "before: averages dropped": without("averaged.", True),
    "before: a moment of another shape": first_of("optimizer.0.weight.exp_avg", lambda value: value.reshape(-1)),
    "before: a weight of another shape": first_of("weights.", lambda value: value.reshape(1, -1)),
    "before: a weight that is no number": first_of("weights.", lambda value: value / 0),
    "before: a step that is no number": with_fact("step", "seven"),
    "before: a step below zero": with_fact("step", -1),
    "before: an unknown fact": with_fact("stap", 7),
    "before: another optimizer": with_fact("optimizer", "muon"),
    "run.json of another run": run_json(id="0" * 32),
    "run.json with other kinds": run_json(resumed="yes", seconds="long", program=3),
    "an empty run.json": lambda run: (run / "run.json").write_bytes(b""),
    "a torn line of metrics": metrics(lambda text: text[: len(text) // 2] + "\n" + text[len(text) // 2 :]),
    "a line of other metrics": metrics(lambda text: '{"step": "x"}\n[1]\n' + text),
}  # fmt: skip
"""What is done to a stopped run; each must be refused with the folder as it was, or said, or make no difference."""


def everything_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != "run.lock"}  # fmt: skip


def tampered(folder, tamper, whole):
    """How a run in ``folder`` takes it: "refused", "said", "no difference", or "silently accepted", or "lost: why"."""
    run = folder / "run_00001"
    tamper(run)
    as_it_was = everything_in(run)
    try:
        state = states.find_state(run)
        state.check(STEPS, "adamw")
        session = train(resume=state)
    except ValueError as error:
        if "\n" in str(error) or not str(error):
            return f"lost: not one line: {error}"
        return "refused" if everything_in(run) == as_it_was else "lost: refused after the folder was changed"
    if state.notes:
        return "said" if outcome(run)["model"] == whole["model"] else "lost: said, and other bits"
    found = outcome(run)
    same = all(found[name] == whole[name] for name in ("step", "tensors", "model"))
    return "no difference" if same and session.reached == STEPS else "silently accepted"


# The command line, in a child


ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "workflows" / "quickstart_digits.json"
SMALL = ["NewModel.width=8", "DigitsDataset.batch_size=8", "SampleImages.steps=2", "SampleImages.count=1",
         "Rollout.ramp_steps=0", "Rollout.probability=1", "Rollout.max_step_offset=2"]  # fmt: skip


def command(*arguments, output, steps):
    """The arguments of a small run of the quickstart, or of another with ``--resume``."""
    chosen = arguments if "--resume" in arguments else (str(QUICKSTART), *arguments)
    sets = [part for name in [*SMALL, f"OptimizerStep.steps={steps}"] for part in ("--set", name)]
    return ["run", *chosen, "--output", str(output), "--device", "cpu", *sets]


def main_in_child(arguments, **options):
    from comfyui_rollout.__main__ import main

    return forked(lambda: main(arguments), **options)


def weights_of(run):
    return load_file(run / "model" / "diffusion_pytorch_model.safetensors")


def same_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Commands:
    """A small run on the command line that nobody disturbed, to compare others with."""

    def __init__(self, folder, steps=12):
        self.folder, self.steps, self.number = Path(folder), steps, 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self.whole, self.seconds = self.run("whole"), 0.0
        begun = time.perf_counter()
        self.run("again")
        self.seconds = time.perf_counter() - begun

    def run(self, name):
        words = self.folder / f"{name}.txt"
        assert main_in_child(command(output=self.folder / name, steps=self.steps), words=words) == 0, words.read_text()
        return self.folder / name / "rollout" / "quickstart_digits_00001"

    def signalled(self, number, share):
        """A signal after a share of the run's time; then it is resumed. ``"stopped and resumed"``, or what is wrong."""
        self.number += 1
        output, words = self.folder / f"signal_{self.number}", self.folder / f"signal_{self.number}.txt"
        run, arguments = output / "rollout" / "quickstart_digits_00001", command(output=output, steps=self.steps)
        begun = self.folder / f"begun_{self.number}"

        def stopped_by_itself():
            from comfyui_rollout.__main__ import main
            from comfyui_rollout.runs.looks import Progress

            after = Progress.after
            signal.signal(number, signal.SIG_DFL)  # as a terminal starts us; nohup would have it ignored

            def at(look, session):
                after(look, session)
                if session.reached == max(1, round(share * self.steps)):
                    begun.write_text(str(time.monotonic()))
                    os.kill(os.getpid(), number)

            Progress.after = at
            return main(arguments)

        code = forked(stopped_by_itself, words=words)
        took = time.monotonic() - float(begun.read_text())
        facts = json.loads((run / "run.json").read_text())
        if (code, facts["status"]) != (130, "interrupted"):
            return f"lost: exit code {code}, {facts['status']}: {words.read_text()[-300:]}", took
        if main_in_child(command("--resume", str(run), output=output, steps=self.steps), words=words) != 0:
            return f"lost: {words.read_text()[-300:]}", took
        return ("stopped and resumed" if same_weights(run, self.whole) else "lost: other bits"), took

    def deaf(self, stream):
        """Nobody reads what is printed on 1 or 2 (or both, 3) any more. ``"finished"``, or what is wrong."""
        self.number += 1
        output = self.folder / f"pipe_{self.number}"
        read, write = os.pipe()

        def work():
            from comfyui_rollout.__main__ import main

            os.close(read)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for number in (1, 2):
                os.dup2(write if stream & number else nowhere, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            return main(command(output=output, steps=self.steps))

        child_code = forked_with_closed(work, read, write)
        run = output / "rollout" / "quickstart_digits_00001"
        if child_code != 0:
            return f"lost: exit code {child_code}"
        return "finished" if same_weights(run, self.whole) else "lost: other bits"


def forked_with_closed(work, read, write):
    """As :func:`forked`, with nobody at the reading end of a pipe."""
    child = os.fork()
    if child == 0:
        code = 71
        try:
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(read)
    os.close(write)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


# Workflows that are damaged


def mutated(workflow, generator):
    """A workflow with one to four things wrong: values of another kind, keys gone, links astray, parts doubled."""
    found = json.loads(json.dumps(workflow))
    for _ in range(generator.randint(1, 4)):
        places = []

        def walk(value, places=places):
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                if isinstance(value[key], (dict, list)):
                    walk(value[key])

        walk(found)
        if not places:
            break
        holder, key = generator.choice(places)
        odd = generator.choice([None, -1, 2**70, 1e308, "", "x" * 3000, [], {}, True, "\0", [[[]]], "NaN", "../../x"])
        action = generator.randint(0, 3)
        if action == 0:
            del holder[key]
        elif action == 1:
            holder[key] = odd
        elif action == 2 and isinstance(holder, list):
            holder.insert(generator.randint(0, len(holder)), json.loads(json.dumps(holder[key])))
        else:
            other, name = generator.choice(places)
            with contextlib.suppress(LookupError, TypeError):
                holder[key] = json.loads(json.dumps(other[name]))
    return found


def validated(workflow, folder):
    """What ``validate`` makes of a workflow: ``(exit code, seconds, what it prints)``; 70 for a traceback."""
    import io

    from comfyui_rollout.__main__ import main

    path = Path(folder) / "mutated.json"
    path.write_text(json.dumps(workflow))
    words, begun = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        try:
            code = main(["validate", str(path)])
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc(file=words)
            code = 70
    return code, time.perf_counter() - begun, words.getvalue()
