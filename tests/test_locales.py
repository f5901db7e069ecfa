"""Translations are complete: nodes, their inputs and outputs, what they offer, templates; and nothing is left over."""

import json
import re
from pathlib import Path

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.server.content.locales import spoken, template_lines
from comfyui_rollout.server.content.templates import index

ROOT = Path(__file__).parents[1]
LANGUAGES = sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json"))
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
NAMES = (
    *("RGB", "L", "lora", "lokr", "loha", "unet", "dit", "fp32", "bf16", "fp16", "int8", "fp8", "nf4"),
    *("unipc", "euler", "dpm", "rk4", "heun", "mse", "huber", "cosine", "polynomial", "beta", "mode", "logit_normal"),
    *("scaled_linear", "squaredcos_cap_v2", "epsilon", "v_prediction", "sample", "x", "spec", "defar", "mean", "l1"),
    *("cps", "flow_sde", "comfyui", "diffusers", "kohya", "attention", "attention+mlp"),
    *("adamw", "adafactor", "sgd", "muon", "prodigy", "came", "lion", "adamw_schedule_free", "adamw_8bit"),
    *("sdpa", "sdpa_flash", "flash", "flash_varlen", "flash_3"),
)
"""What a widget offers under the same name in every language: methods, formats, symbols."""


@pytest.fixture(params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture
def words(language):
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.fixture
def main(language):
    return json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))


GUIDE = (ROOT / "docs" / "hi" / "README.md").read_text(encoding="utf-8")
RETIRED = ("चरण", "सीखने की दर", "शोर", "नमून", "यादृच्छिक", "वक्र", "युग", "निरीक्षक", "सहेज", "प्रायिकता", "लक्ष्य")
"""Words for what the glossary calls स्टेप, लर्निंग रेट, नॉइज़, सैंपल, रैंडम, कर्व, एपॉक, इंस्पेक्टर, सेव, संभावना, टारगेट."""


def inputs_of(node):
    declared = node.INPUT_TYPES()
    return {**declared.get("required", {}), **declared.get("optional", {})}


def offered_by(spec):
    """The words that a widget offers; files that happen to lie in a folder are no words."""
    return [option for option in spec[0] if "." not in option] if isinstance(spec[0], list | tuple) else []


def pairs(words):
    """All English texts of the nodes with their translations."""
    for name, node in NODE_CLASS_MAPPINGS.items():
        yield node.DESCRIPTION, words[name]["description"]
        for input, spec in inputs_of(node).items():
            yield spec[1]["tooltip"], words[name]["inputs"][input]["tooltip"]
        for place, tooltip in enumerate(getattr(node, "OUTPUT_TOOLTIPS", ())):
            yield tooltip, words[name]["outputs"][str(place)]["tooltip"]


def said_in(workflow):
    """The lines of its notes, and the titles of its groups and nodes."""
    for part in (*workflow["nodes"], *workflow.get("groups", ())):
        yield part.get("title") or ""
        if part.get("type") == "MarkdownNote":
            yield from part["widgets_values"][0].splitlines()


def said_in_blueprint(workflow):
    """Its name, its description, and the titles in it."""
    (whole,) = workflow["definitions"]["subgraphs"]
    return (whole["name"], whole["description"], *(node.get("title") or "" for node in whole["nodes"]))


ALL_LINES = {line for path in WORKFLOWS for line in said_in(json.loads(path.read_text(encoding="utf-8"))) if line}
ALL_LINES |= {line for path in BLUEPRINTS for line in said_in_blueprint(json.loads(path.read_text("utf-8"))) if line}


def test_there_is_hindi():
    """The language of the guide in docs/hi."""
    assert "hi" in LANGUAGES


def test_everything_of_a_node_is_translated(words):
    """A new node, input or output gets its line in every language; what is gone takes its line along."""
    assert set(words) == set(NODE_CLASS_MAPPINGS)
    for name, node in NODE_CLASS_MAPPINGS.items():
        assert set(words[name]["inputs"]) == set(inputs_of(node)), name
        assert len(words[name].get("outputs", {})) == len(node.RETURN_TYPES), name
    assert [english for english, translated in pairs(words) if not translated.strip()] == []


def test_what_is_offered_is_explained(words):
    """Each word that a widget offers has its meaning beside it, unless it is a name; and there is none too many."""
    for name, node in NODE_CLASS_MAPPINGS.items():
        for input, spec in inputs_of(node).items():
            wanted = {option for option in offered_by(spec) if option not in NAMES}
            assert set(words[name]["inputs"][input].get("options", {})) == wanted, (name, input)


def test_the_same_is_said_in_the_same_way(words):
    """Equal English texts have equal translations."""
    known = {}
    for english, translated in pairs(words):
        assert known.setdefault(english, translated) == translated


def test_values_and_names_are_kept(words):
    """A translation names the numbers and the inputs that the English text names."""
    for english, translated in pairs(words):
        for value in re.findall(r"\d[\d.,]*\d|\d|\w+_\w+", english):
            assert value in translated, (value, english, translated)


def test_categories_are_translated(main):
    """Ours; the folder that ComfyUI's own training nodes are in keeps its name."""
    ours = {part for node in NODE_CLASS_MAPPINGS.values() for part in node.CATEGORY.split("/")}
    assert set(main["nodeCategories"]) == ours - {"training"}


def test_templates_are_translated(main):
    """Every line of every template's note, every title in it; what names the templates in their browser; blueprints."""
    lines = main["rolloutTemplates"]
    assert set(lines) == ALL_LINES | {"Rollout training", "Training", "steps", "min"}
    for english, translated in lines.items():
        assert translated.strip()
        assert re.findall(r"\*\*|\*|`|^#+ |^\d\. |^- ", english) == re.findall(r"\*\*|\*|`|^#+ |^\d\. |^- ", translated)
        assert set(re.findall(r"\d+", english)) == set(re.findall(r"\d+", translated)), english


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_templates_open_as_such(path):
    """Only a workflow that says so is translated when it is opened: what people saved stays as they wrote it."""
    assert json.loads(path.read_text(encoding="utf-8"))["extra"]["rollout"]["opens"] is True


def test_each_template_says_what_it_needs():
    """On its card, before it is opened: the memory of a LoRA's card, and how long it trains."""
    (category,) = index(ROOT / "workflows")
    shown = {template["name"]: template["tags"] for template in category["templates"]}
    assert shown["quickstart_digits"] == ["2 min", "Training"]
    assert shown["lora_sdxl"] == ["12 GB", "1,500 steps", "Training"]
    unknown = [name for name, tags in shown.items() if name.startswith("lora_") and not tags[0].endswith(" GB")]
    assert unknown == []
    assert [name for name, tags in shown.items() if not any(tag.endswith((" min", " steps")) for tag in tags)] == []


def test_the_template_browser_speaks_it(language):
    """Titles and descriptions of the index are in the language; without one they are the notes' own."""
    lines = template_lines(ROOT / "locales", language)
    english, translated = index(ROOT / "workflows")[0], index(ROOT / "workflows", lines)[0]
    assert translated["title"] != english["title"]
    for before, after in zip(english["templates"], translated["templates"], strict=True):
        assert after["name"] == before["name"]
        assert is_hindi(after["title"])
        assert is_hindi(after["description"])
        assert not after["description"].startswith("*")


def test_which_language():
    """The chosen one, else the first that the browser wants and that is known, else English."""
    known = ["hi"]
    assert spoken("hi", "en", known) == "hi"
    assert spoken("auto", "fr-FR,hi-IN;q=0.9,en;q=0.8", known) == "hi"
    assert spoken(None, "en-GB,hi", known) == "en"
    assert spoken("auto", "", known) == "en"
    assert spoken(7, "fr,*", known) == "en"


def is_hindi(text):
    """At least a tenth of it is Devanagari; the rest are names."""
    return len(re.findall(r"[\u0900-\u097f]", text)) > len(text) / 10


def test_hindi_is_written_in_hindi(words, main):
    """No text was left in English by mistake, save lines that hold names only."""
    for _, text in pairs(words):
        assert is_hindi(text), text
    for english, text in main["rolloutTemplates"].items():
        assert is_hindi(text) or re.fullmatch(r"[\d. ]*(\*+[\w ]+\*+[^\w*]*)+|Sample Images: .*", text), english


@pytest.mark.parametrize(
    "path", ["locales/hi/nodeDefs.json", "locales/hi/main.json", "web/words/hi.json", "web/words/said.hi.json"]
)
def test_one_word_for_one_thing(path):
    """Nodes, templates, panels and the guide call things as the glossary does."""
    text = (ROOT / path).read_text(encoding="utf-8") + GUIDE
    assert [word for word in RETIRED if re.search(rf"(?<![\u0900-\u097f]){word}", text)] == []


def test_the_glossary_is_used():
    """Each Hindi term of the glossary is one that the guide, the nodes, the templates or the panels use."""
    rows = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()[4:]
    paths = ("locales/hi/nodeDefs.json", "locales/hi/main.json", "web/words/hi.json", "web/words/said.hi.json")
    used = GUIDE + "".join((ROOT / path).read_text(encoding="utf-8") for path in paths)
    terms = [term for row in rows for term in row.rstrip("| ").rsplit("|", 1)[1].strip().split(", ")]
    assert len(terms) > len(rows)
    assert [term for term in terms if term not in used] == []


def test_the_guide_tells_the_same_figures():
    """What was measured, the settings and the pictures are those of the English pages."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "web" / "docs" / "Rollout.md"]
    english = "".join(page.read_text(encoding="utf-8") for page in pages)
    figures = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", GUIDE))
    assert len(figures) > 20
    assert [figure for figure in figures if figure not in english] == []
    shown = {Path(name).name for name in re.findall(r"\]\((?:\.\./)?(?:docs/)?(images/[^)]+)\)", english)}
    assert {Path(name).name for name in re.findall(r"\]\(\.\./(images/[^)]+)\)", GUIDE)} <= shown
    for row in re.findall(r"^\|[^|]+((?:\| \d\.\d\d ){4})\|$", GUIDE, re.MULTILINE):
        assert row.strip("| ") in english
