"""A session that was recorded with a real ComfyUI: its tiny node pack, what was queued, what came back."""

import json
import re
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "recorded" / "comfyui"
VALUE = {"x": 2.5, "n": 3, "seed": 1, "mode": "fast", "flag": True, "text": "t"}

BAD = {
    "min": ("1", {"n": 0}),
    "max": ("1", {"n": 1000}),
    "list": ("1", {"mode": "zzz"}),
    "type": ("1", {"n": "abc"}),
    "missing": ("1", {"n": None}),
    "mismatch": ("2", {"value": ["1", 1]}),
    "badlink": ("2", {"value": ["1", 1, 2]}),
    "danglinglink": ("2", {"value": ["99", 0]}),
    "cycle": ("1", {"opt": ["1", 0]}),
}
"""Wrong inputs by their section of the transcript: the node, and what is changed; None takes the input away."""
REFUSED = (*BAD, "class", "noclass", "noout")


class DummyHost:
    """Where running dummy nodes report to; tests change how the nodes behave through it."""

    picture = "image"

    def __init__(self):
        self.executor = None

    def on_progress(self, i):
        """Called after step ``i`` of DummyValue was reported."""

    def on_end(self, uid, x):
        """Called when DummyValue has done all its steps."""
        self.executor.send("dummy.event", {"node": uid, "x": x})


def pack(host):
    """The classes that the session was recorded with; a running DummyValue reports through the host."""

    class DummyValue:
        RETURN_TYPES = ("DUMMY_VALUE", "FLOAT")
        FUNCTION = "run"

        @classmethod
        def INPUT_TYPES(cls):
            return {
                "required": {
                    "x": ("FLOAT", {"default": 1.5, "min": 0.0, "max": 10.0, "step": 0.5, "tooltip": "an x"}),
                    "n": ("INT", {"default": 3, "min": 1, "max": 100}),
                    "seed": ("INT", {"default": 0, "min": 0, "max": 2**63, "control_after_generate": True}),
                    "mode": (["fast", "slow"], {"default": "fast"}),
                    "flag": ("BOOLEAN", {"default": True, "label_on": "yes", "label_off": "no"}),
                    "text": ("STRING", {"multiline": True, "default": "hi"}),
                },
                "optional": {"opt": ("DUMMY_VALUE", {"lazy": True})},
                "hidden": {"uid": "UNIQUE_ID", "prompt": "PROMPT", "png": "EXTRA_PNGINFO"},
            }

        def run(self, x, n, seed, mode, flag, text, uid, opt=None, prompt=None, png=None):
            for i in range(1, n):
                host.executor.progress(uid, i, n, host.picture if i == 1 else None)
                host.on_progress(i)
            host.on_end(uid, x)
            return ({"x": x, "seed": seed}, x)

    class DummySink:
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        @classmethod
        def INPUT_TYPES(cls):
            return {
                "required": {"value": ("DUMMY_VALUE", {})},
                "optional": {"number": ("FLOAT", {"forceInput": True})},
            }

        def run(self, value, number=None):
            return {"ui": {"text": [str(value), str(number)]}}

    class DummyFail:
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"value": ("DUMMY_VALUE",), "msg": ("STRING", {"default": "boom"})}}

        @classmethod
        def VALIDATE_INPUTS(cls, msg):
            return "msg is bad" if msg == "bad" else True

        def run(self, value, msg):
            raise ValueError(msg)

    return {kind.__name__: kind for kind in (DummyValue, DummySink, DummyFail)}


def queued():
    """What the session queued: a value and a sink."""
    return {
        "1": {"class_type": "DummyValue", "inputs": dict(VALUE), "_meta": {"title": "DV"}},
        "2": {"class_type": "DummySink", "inputs": {"value": ["1", 0], "number": ["1", 1]}},
    }


def spoil(prompt, name):
    """Make a prompt wrong as it was when the section ``bad <name>`` was recorded."""
    if name in BAD:
        node_id, inputs = BAD[name]
        merged = prompt[node_id]["inputs"] | inputs
        prompt[node_id]["inputs"] = {key: value for key, value in merged.items() if value is not None}
    if name == "class":
        prompt["2"]["class_type"] = "Nope"
    if name == "noclass":
        del prompt["2"]["class_type"]
    if name == "noout":
        del prompt["2"]


def transcript():
    """The recorded lines by section; the requests between the runs are sections of their first word."""
    sections, name = {}, "welcome"
    for line in (DATA / "transcript.txt").read_text().splitlines():
        word = re.match(r"=== (run 1|run 2|fail|bad \w+)|(HIST|JOBS|JOB|QUEUE|INT|CANC)\b|(4\d\d) ", line)
        if word:
            name = next(filter(None, word.groups()))
        sections.setdefault(name, []).append(line)
    return sections


def reply(lines):
    """The JSON reply that a section begins with."""
    return json.loads(lines[0][lines[0].index("{") :])


def messages(lines):
    """The messages of a section as (type, data); data is None where the recorder cut a line, "BIN 4" is a picture."""
    found = []
    for line in lines:
        if line.startswith("BIN 4"):
            ids = json.loads(re.search(r"b'(\{.*?\})'", line)[1])
            found.append(("BIN 4", {**ids, "magic": b""}))
        elif line.startswith("TEXT "):
            try:
                message = json.loads(line[5:])
            except json.JSONDecodeError:
                message = {"type": re.search(r'"type": "(\w+)"', line)[1], "data": None}
            found.append((message["type"], message["data"]))
    return found
