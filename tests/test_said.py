"""What Python says on nodes and in errors is said in every language of the studio; and no translation is left over.

The sentences are read from the source (``support/sentences.py``), with each of their alternatives, and go through the
browser's own matcher (``web/lib/language/phrasebook.js``).
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.data.preflight import images_in_words
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.graph import Executor, load, to_prompt, validate
from comfyui_rollout.hosts.current import hosted_by
from comfyui_rollout.hosts.host import Host
from PIL import Image
from sentences import joined_by, kept_for_later, raised, shown_on_nodes
from shipped import DEFINITIONS, DIGITS, made_small

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "web" / "words").glob("said.*.json"))
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
ELSEWHERE = ("graph/", "server/guard", "server/jobs", "server/routes", "server/serve", "hosts/model_paths")
"""Where errors are for programs and terminals: workflow files, addresses, the protocol, the start of the server."""
OVERHEARD = {
    "folder - the folder '/photos' does not exist": ["/photos"],  # as the frontend is told what is wrong with an input
    "cat.png: the disk is nearly full; nothing was added": ["cat.png"],  # of a file that was brought in
    "cat.png: another file of this name is there": ["cat.png"],  # server/pictures/arrivals.py
    "cannot read x.png: image file is truncated": ["x.png"],  # the three that Pillow says most often
    "cannot read x.png: image file is truncated (58 bytes not processed)": ["x.png", "58"],
    "cannot read x.png: cannot identify image file": ["x.png"],
    "process 3: Δ": ["3", "Δ"],  # hosts/watch.py
    "process 3 ended without a word: it was killed, or ran out of memory": ["3"],
    "a: b: it goes on from c.pt, after step 7": ["c.pt", "7"],  # training/state/find.py
    "node 5 (Loss), step 7: the device's memory is too small for this step. Change one of these: precision bf16 in "
    "Optimizer Step (nearly half of what a step needs beside the weights); on_out_of_memory halve in Optimizer Step, "
    "which splits the batch by itself": ["5", "Loss", "7"],  # training/micro.py
}
"""Sentences that are put together from what others said."""
ENGLISH = re.compile(
    r"(?<![\w-])(the|and|of|more|are|is|with|which|for|its|not|empty|repeats?|restored|at|to|it|be|than|files?|images?|has"
    r"|have|on|no|this|that|from)(?![\w-])"
)
"""Words that are no names, methods or values."""
HOLE = re.compile(r"\{(\w+)(?::\w+)?\}")

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture(params=FILES, ids=lambda path: path.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def templates(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def say(path):
    """``say(lines)``: for each line ``{"text", "used"}``, or None where it is not known."""

    def through_the_browsers_code(lines):
        command = ["node", ROOT / "tests" / "support" / "say.mjs", path]
        done = subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True, timeout=120, check=True)
        return json.loads(done.stdout)

    return through_the_browsers_code


@pytest.fixture(scope="module")
def sentences():
    """All that is said, with the values in it; without what is no more than values."""
    found = shown_on_nodes() | kept_for_later() | raised(ELSEWHERE) | OVERHEARD
    return {line: values for line, values in found.items() if re.search("[a-z]{3}", without_values(line))}


def without_values(line):
    return re.sub(r"^\w+: Δ\d( Δ\d)?$|[\w.]*Δ\w*", "", line)


@pytest.fixture(scope="module")
def said(say, sentences):
    return dict(zip(sentences, say(list(sentences)), strict=True))


def test_there_is_hindi():
    """As many languages as the panels have."""
    assert [path.name for path in FILES] == [f"said.{path.name}" for path in sorted(FILES[0].parent.glob("??.json"))]


def test_everything_that_is_said_is_translated(said):
    """A new sentence in Python gets its template in every language."""
    assert len(said) > 500
    assert [line for line, found in said.items() if found is None] == []


def test_values_are_carried_over(said, sentences):
    """Numbers, names and paths stand in the translation as they stood in the sentence."""
    lost = [
        (line, found["text"]) for line, found in said.items() if any(v not in found["text"] for v in sentences[line])
    ]
    assert lost == []


def test_nothing_of_a_sentence_stays_english(said):
    """No part of one (``3 more``, ``1 repeat``) was taken for a name."""
    left = [found["text"] for found in said.values() if ENGLISH.search(re.sub(r"^\w+: ", "", found["text"]))]
    assert left == []


def test_values_are_joined_by_commas():
    """A hole is carried over as it is: an "or" between two values would stay English in every language."""
    assert {name: words for name, words in joined_by(ELSEWHERE).items() if re.search("[a-z]{2}", words)} == {}


def test_no_template_is_left_over(said, templates):
    """Each is that of some sentence."""
    used = {template for found in said.values() for template in found["used"]}
    assert [template for template in templates if template not in used] == []


def test_a_template_keeps_its_holes(templates):
    """Each value once, and none that is not there; and the sentence is in the language's letters."""
    for english, translated in templates.items():
        assert sorted(HOLE.findall(english)) == sorted(HOLE.findall(translated)), english
        assert (
            re.search("[\u0900-\u097f]", translated)
            or not re.search("[a-z]{3}", HOLE.sub("", english))
            or "shard" in english
        )


def test_numbers_and_names_are_kept(templates):
    """Figures, inputs (``max_step_offset``) and nodes stand in the translation too."""
    for english, translated in templates.items():
        for value in re.findall(
            r"\d[\d.,]*\d|\d|\w+_\w+|(?:[A-Z]\w+ )+(?:Step|Dataset|LoRA|Model)\b|Load \w+", HOLE.sub("", english)
        ):
            assert value in translated, (value, english)


def test_the_reader_reads_what_is_there():
    """Of f-strings, of what functions give, of choices, of counts; of a call's own arguments."""
    nodes, errors = shown_on_nodes(), raised()
    assert "71 images x 72 repeats / batch Δ3 = 1 step per epoch" in nodes
    assert "captions: 71 of 72; none for Δ3, Δ4, 75 more ('Δ6' stands in)" in nodes
    needed = "a training step needs about 71 GB (72 GB weights, 73 GB of the optimizer, 74 GB to compute)"
    assert f"{needed}; 75 GB are here: fits" in nodes
    assert "left out, mask without its picture: Δ1" in nodes
    assert errors["the folder 'Δ1' does not exist"] == ["Δ1"]
    spoilt = "node Δ1 (Optimizer Step), step Δ2: the trained weights are no finite numbers any more"
    assert errors[f"{spoilt}; lower the learning rate, or clip the gradients"] == ["Δ1", "Δ2"]


def test_a_real_folder_is_told_of(say, tmp_path):
    """What was foreseen is what is said: of a folder with all that one may hold."""
    for name, size in (("a", 64), ("b", 96), ("c", 32)):
        Image.new("RGB", (size, 48), (size, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a cat, 24 images of it")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.txt").write_bytes("née".encode("cp1252"))
    (tmp_path / "stray.txt").write_text("?")
    (tmp_path / "notes.psd").write_text("?")
    (tmp_path / "torn.png").write_bytes(b"?")
    lines = images_in_words(ImageFolder(tmp_path, size=48), 8, reads_text=True)
    assert len(lines) > 6
    found = dict(zip(lines, say(lines), strict=True))
    assert [line for line, translated in found.items() if translated is None] == []
    assert "a.png" in " ".join(translated["text"] for translated in found.values())


@pytest.mark.parametrize("name", ["quickstart_digits", "lora_sd15"])
def test_what_shipped_templates_say_is_foreseen(say, name, tiny_pipeline, photos, tmp_path):
    """Trained for three steps, a tiny pipeline in place of the model: all that their nodes draw is known."""
    prompt = made_small(name, tiny_pipeline("sd"), None if name.endswith("digits") else photos)
    host = Host()
    host.output_folder, host.device = tmp_path, "cpu"
    with hosted_by(host):
        ended = Executor(NODE_CLASS_MAPPINGS).run(prompt)
    assert ended.status == "success", ended.error
    lines = [
        line for output in ended.outputs.values() for line in output.get("text", ()) if not Path(line).is_absolute()
    ]
    assert len(lines) > 3
    assert [line for line, found in zip(lines, say(lines), strict=True) if found is None] == []


def test_what_is_missing_is_told_of(say):
    """A shipped template whose pictures and models are not here says so, and in every language."""
    lines = set()
    for workflow in (path for path in WORKFLOWS if path.stem not in DIGITS and "comfyui" not in path.stem):
        checked = validate(to_prompt(load(workflow), DEFINITIONS), NODE_CLASS_MAPPINGS)
        own = {fault["details"] for node in checked.node_errors.values() for fault in node["errors"]}
        assert own, workflow.name
        lines |= own
    assert [line for line, found in zip(sorted(lines), say(sorted(lines)), strict=True) if found is None] == []


def test_a_word_of_the_person_stays(say):
    """A caption, a path or a class that reads like a sentence of ours is carried over, not translated."""
    line = "captions: 1 of 2; none for 24 images.png ('1 image' stands in)"
    (found,) = say([line])
    assert "24 images.png" in found["text"]
    assert "'1 image'" in found["text"]
    assert say(["somebody's own words about 24 images"]) == [None]
