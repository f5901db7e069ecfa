"""Models are found where ComfyUI finds them: in models/, and where its extra_model_paths.yaml says."""

from pathlib import Path

import pytest
from comfyui_rollout.hosts.model_paths import FILE, KINDS, ModelPaths

COMFYUI = """
comfyui:
    base_path: {base}
    is_default: true
    checkpoints: models/checkpoints/
    text_encoders: |
         models/text_encoders/
         models/clip/  # legacy
a111:
    base_path: ~/webui
    checkpoints: models/Stable-diffusion
    loras: |
         models/Lora

         models/LyCORIS
plain:
    unet: $PLACE/unet
other_ui:
    base_path: relative
    vae: vae
empty:
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    (tmp_path / FILE).write_text(COMFYUI.format(base=tmp_path / "ComfyUI"))
    return tmp_path


def test_folders_of_all_sections(folder):
    """Default sections first, then our own, then the others; relative ones from the file, former names as well."""
    paths = ModelPaths.read([folder / "models"])
    comfyui, webui = folder / "ComfyUI" / "models", folder / "home" / "webui" / "models"
    assert paths.of("checkpoints") == [
        comfyui / "checkpoints", folder / "models" / "checkpoints", webui / "Stable-diffusion"
    ]  # fmt: skip
    assert paths.of("loras") == [folder / "models" / "loras", webui / "Lora", webui / "LyCORIS"]
    assert paths.of("vae") == [folder / "models" / "vae", folder / "relative" / "vae"]
    unets = [folder / "models" / "diffusion_models", folder / "models" / "unet", folder / "place" / "unet"]
    assert paths.of("diffusion_models") == unets
    assert paths.of("text_encoders")[:2] == [comfyui / "text_encoders", comfyui / "clip"]
    assert paths.of("upscale_models") == [folder / "models" / "upscale_models"]


def test_files_that_are_named_take_the_place_of_ours(folder):
    """Several, in their order; without any and without ours, there are only our own folders."""
    other = folder / "other.yaml"
    other.write_text("x:\n  vae: /disk/vae\n")
    assert ModelPaths.read([folder / "models"], [other]).of("vae") == [folder / "models" / "vae", Path("/disk/vae")]
    assert ModelPaths.read([folder / "x" / "models"]).of("vae") == [folder / "x" / "models" / "vae"]


@pytest.mark.parametrize(
    "text", ["[", "- a", "x: 3", "x:\n  vae: 3", "x:\n  vae:\n    a: b", "\x00", "!!python/object:os.system x"]
)
def test_a_file_that_is_none_is_named(folder, text):
    """In one line; nothing in it is run."""
    (folder / FILE).write_text(text)
    with pytest.raises(ValueError, match=FILE) as caught:
        ModelPaths.read([folder / "models"])
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    """Whoever asks for it wants it."""
    with pytest.raises(ValueError, match=r"gone\.yaml: No such file"):
        ModelPaths.read([tmp_path], [tmp_path / "gone.yaml"])


def test_folders_are_made(tmp_path):
    """Where they can be; a place that cannot be written is no reason not to start."""
    paths = ModelPaths((tmp_path / "models",))
    paths.make()
    paths.make()
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == sorted(KINDS)
    (tmp_path / "file").write_text("")
    ModelPaths((tmp_path / "file",)).make()
