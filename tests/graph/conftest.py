"""The tiny node pack that the recorded facts were made with, and short ways to write graphs."""

import json

import pytest
from comfyui_rollout.graph import Executor, object_info, validate
from recorded_session import DATA, VALUE, DummyHost, pack, queued


def node_class(function, inputs=None, returns=("*",), **attributes):
    """A node class around a plain function; `inputs` is INPUT_TYPES() or a list of names of any type."""
    types = inputs if isinstance(inputs, dict) else {"required": {name: ("*", {}) for name in inputs or ()}}
    body = {
        "INPUT_TYPES": classmethod(lambda cls: types),
        "RETURN_TYPES": returns,
        "FUNCTION": "run",
        "run": staticmethod(function),
    }
    return type("Node", (), body | attributes)


@pytest.fixture
def data():
    return DATA


@pytest.fixture
def host():
    return DummyHost()


@pytest.fixture
def mapping(host):
    return pack(host)


@pytest.fixture
def make_class():
    return node_class


@pytest.fixture
def info(data):
    """/object_info of the pack, as a real server gave it."""
    return json.loads((data / "converter" / "object_info.json").read_text())


@pytest.fixture
def prompt():
    """What the recorded session queued: a value and a sink."""
    return queued()


@pytest.fixture
def value_inputs():
    return dict(VALUE)


@pytest.fixture
def run():
    """run(mapping, prompt, executor=None, **options) -> (result, [(type, data), ...]) after a clean validation."""

    def run(mapping, prompt, executor=None, **options):
        validation = validate(prompt, mapping)
        assert not validation.node_errors, validation.node_errors
        assert validation.error is None, validation.error
        messages = []
        executor = executor or Executor(mapping)
        options = {"listener": lambda kind, data: messages.append((kind, data))} | options
        return executor.run(validation.prompt, **options), messages

    return run


@pytest.fixture
def info_of():
    return object_info


@pytest.fixture
def node():
    """node(id, type, inputs={name: link id}, outputs=[types], ...) -> a saved UI node."""

    def node(node_id, kind, inputs=None, outputs=(), mode=0, **more):
        slots = [item if isinstance(item, dict) else {"name": item, "type": "*"} for item in inputs or ()]
        if isinstance(inputs, dict):
            slots = [{"name": name, "type": "*", "link": link} for name, link in inputs.items()]
        made = [{"name": kind, "type": kind, "links": []} for kind in outputs]
        return {"id": node_id, "type": kind, "mode": mode, "inputs": slots, "outputs": made} | more

    return node


@pytest.fixture
def subgraph():
    """subgraph(id, nodes, links, inputs=[(name, type)], outputs=[(name, type)]) -> a subgraph definition."""

    def subgraph(kind, nodes, links, inputs=(), outputs=()):
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [dict(zip(keys, link, strict=True)) for link in links]
        ends = {"inputs": ("origin_id", -10, "origin_slot"), "outputs": ("target_id", -20, "target_slot")}
        slots = {
            side: [
                {"name": name, "type": type_, "linkIds": [k["id"] for k in links if (k[end], k[slot]) == (io, i)]}
                for i, (name, type_) in enumerate(inputs if side == "inputs" else outputs)
            ]
            for side, (end, io, slot) in ends.items()
        }
        return {"id": kind, "name": kind, "version": 1, "nodes": nodes, "links": links} | slots

    return subgraph


@pytest.fixture
def flow():
    """flow(nodes, links, *definitions) -> a workflow in UI format 0.4."""

    def flow(nodes, links, *definitions, **more):
        return {
            "nodes": nodes,
            "links": links,
            "definitions": {"subgraphs": list(definitions)},
            "version": 0.4,
        } | more

    return flow
