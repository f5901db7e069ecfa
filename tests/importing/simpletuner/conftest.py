"""Where SimpleTuner would be started."""

import shutil

import pytest
from brought_over import DATA, IMAGES
from PIL import Image


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder with the configurations and the images they name, in which SimpleTuner would be started."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    for name, count in IMAGES.items():
        (tmp_path / "datasets" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (64, 64), (20 * number, 90, 90)).save(tmp_path / "datasets" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path
