"""A hundred kinds of files that people have among their photos: each gets its word, and none a traceback."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.preflight import images_in_words
from comfyui_rollout.data.reading.images import ImageFolder
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "support" / "make_nasty.py"


def load():
    spec = importlib.util.spec_from_file_location("make_nasty", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_nasty"] = module
    spec.loader.exec_module(module)
    return module


nasty = load()


def test_there_are_kinds_enough():
    """As many as was promised."""
    assert len(nasty.KINDS) >= 60


@pytest.mark.parametrize("name", nasty.KINDS)
def test_every_kind_gets_its_word(tmp_path, name):
    """Trained like any other and rightly captioned, left out and said, or refused in one line that names the file."""
    kind = nasty.KINDS[name]
    if kind.needs and kind.needs not in Image.registered_extensions():
        pytest.skip(f"this Pillow was made without {kind.needs}")
    folder = nasty.make(tmp_path, name)
    if kind.refused:
        with pytest.raises(ValueError, match=re.escape(kind.says)) as refused:
            ImageFolder(folder, size=128, buckets=True)
        assert "\n" not in str(refused.value)
        return
    images = ImageFolder(folder, size=128, buckets=True)
    said = images_in_words(images, 2, reads_text=True)
    assert any(kind.says in line for line in said), said
    assert all(line.isprintable() for line in said)
    if kind.caption is not None:
        (bad,) = [item for item in images.items if item.path.name != "good.png"]
        assert bad.caption == kind.caption
    for place in range(len(images.items)):  # what is kept can be trained
        batch = images.batch([place], ItemGenerators(0, name, place, 1))
        assert batch.latents.isfinite().all()
        assert batch.latents.shape[1] == 3
