"""Graphs of our nodes, wired as a person would, and a host that remembers what it was told."""

import json
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.hosts.current import hosted_by
from comfyui_rollout.hosts.host import Host, Interrupted
from comfyui_rollout.training.stream import Run, Step
from lora_nodes import adapt, base, fit, prompts, save, trained  # noqa: F401  # fixtures
from safetensors.torch import load_file

torch.set_num_threads(1)  # tiny tensors: more threads only get in each other's way

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Listener(Host):
    """Remembers what it is told; ``stop_after`` updates of the trainer it asks to stop."""

    device = "cpu"

    def __init__(self, output_folder):
        self.output_folder, self.told, self.wanted, self.stop_after = output_folder, [], set(), None

    def wants(self, kind):
        return kind in self.wanted

    def progress(self, node_id, value, maximum):
        self.told.append(("progress", node_id, value, maximum))

    def show(self, node_id, kind, update, picture):
        self.told.append(("show", node_id, kind, update))

    def metrics(self, node_id, rows):
        self.told.append(("metrics", node_id, rows))

    def resumed(self, node_id, text):
        self.told.append(("resumed", node_id, text))

    def finish(self, node_id):
        self.told.append(("finish", node_id))

    def check_interrupted(self):
        done = max((event[2] for event in self.told if event[0] == "progress"), default=0)
        if self.stop_after is not None and done >= self.stop_after:
            raise Interrupted("stopped by the user")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture(autouse=True)
def host(output):
    """Whatever a test builds reports here and writes below the test's own folder."""
    listener = Listener(output)
    with hosted_by(listener):
        yield listener


def with_defaults(node, inputs):
    """The inputs as ComfyUI passes them: widgets that nobody touched have their defaults."""
    declared = node.INPUT_TYPES()
    widgets = declared.get("required", {}) | declared.get("optional", {})
    defaults = {name: facts["default"] for name, (_, facts) in widgets.items() if "default" in facts}
    if "unique_id" in declared.get("hidden", {}):
        defaults["unique_id"] = node.NODE_ID
    assert inputs.keys() <= widgets.keys() | declared.get("hidden", {}).keys()
    return defaults | inputs


@pytest.fixture
def build():
    """``build(Node, **inputs)``: what the node returns, as it returns it."""
    return lambda node, **inputs: getattr(node(), node.FUNCTION)(**with_defaults(node, inputs))


@pytest.fixture
def wire(build):
    """``wire(Node, **inputs)``: the first output, what a wire from the node carries."""

    def first(node, **inputs):
        returned = build(node, **inputs)
        return (returned["result"] if isinstance(returned, dict) else returned)[0]

    return first


@pytest.fixture
def graph(wire):
    """``graph(rollout={...}, preview={...}, loss=Node)``: the canonical graph on 8x8 digits, as small as can be."""

    def connect(*, rollout=None, preview=None, loss=nodes.DiffusionLoss, loss_inputs=None, model=None, schedule=None):
        dataset = wire(nodes.DigitsDataset, batch_size=4)
        schedule = schedule or wire(nodes.FlowMatchingSchedule)
        model = wire(nodes.NewModel, dataset=dataset, **{"width": 8, "depth": 1, **(model or {})})
        batch = wire(nodes.NoisyBatch, dataset=dataset, schedule=schedule)
        if rollout is not None:
            batch = wire(nodes.Rollout, batch=batch, model=model, **rollout)
        if preview is not None:
            batch = wire(nodes.PreviewLatents, batch=batch, **preview)
        result = wire(loss, batch=batch, model=model, **(loss_inputs or {}))
        return SimpleNamespace(dataset=dataset, schedule=schedule, model=model, batch=batch, loss=result)

    return connect


@pytest.fixture
def train(build, wire):
    """``train(graph, steps=3)``: run Optimizer Step; what it left behind."""

    def run(graph, **options):
        optimizer = wire(nodes.Optimizer, learning_rate=0.01)
        inputs = {"loss": graph.loss, "model": graph.model, "optimizer": optimizer, "steps": 3, **options}
        returned = build(nodes.OptimizerStep, **inputs)
        model, folder = returned["result"]
        return SimpleNamespace(
            ui=returned["ui"],
            model=model,
            folder=folder,
            weights=load_file(folder / "model" / WEIGHTS),
            facts=json.loads((folder / "run.json").read_text()),
        )

    return run


@pytest.fixture
def only_run(output):
    """The one folder below output/rollout, for runs that did not return."""

    def find():
        (folder,) = (output / "rollout").iterdir()
        return SimpleNamespace(folder=folder, facts=json.loads((folder / "run.json").read_text()))

    return find


@pytest.fixture
def pull():
    """``pull(stream)``: its value in a single step, and the step."""

    def once(stream, index=0, **options):
        step = Step(Run(stream, seed=options.pop("seed", 0), **options), index, watched=True)
        return step.value(stream), step

    return once


@pytest.fixture
def same_bits():
    def compare(first, second):
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)

    return compare
