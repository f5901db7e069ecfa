"""Models by hub id."""

import shutil

import pytest
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from loaded import equal, network, parts


def test_a_hub_id_is_found_in_the_cache(tiny_pipeline, tmp_path, monkeypatch):
    """As huggingface_hub keeps it: what was downloaded once needs no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(tiny_pipeline("sd"), cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = Source("somebody/tiny", storage="fp32")
    assert equal(network(source), network(Source(str(tiny_pipeline("sd")), storage="fp32")))
    assert parts(source).text_encoder is not None
    assert Pretrained(source, inspect(source)).weights()["unet"] > 0


def test_a_hub_id_that_cannot_be_fetched_is_one_line(tmp_path, monkeypatch):
    """Offline, gated or misspelt: the line says which model, that it is not here, and what to do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'somebody/tiny' is not here, .* Put a model into") as caught:
        inspect(Source("somebody/tiny"))
    assert "\n" not in str(caught.value)
