"""Fine-tuned models as others load them."""

import json
import shutil

import pytest
import torch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.files.weights import read_metadata, read_weights
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.pipeline_folder import save_pipeline, save_single_file

METADATA = {"workflow": "{}"}


def pretrained(path, **options):
    source = Source(str(path), **options)
    return Pretrained(source, inspect(source))


@pytest.fixture
def weights(tiny_pipeline):
    """``weights(family, part)``: trained weights for that network: all a little larger."""

    def make(family, part="unet"):
        (path,) = (tiny_pipeline(family) / part).glob("*.safetensors")
        return {name: value + 0.5 for name, value in read_weights(path).items()}

    return make


@pytest.mark.parametrize(("family", "part"), [("sd", "unet"), ("flux", "transformer"), ("lumina2", "transformer")])
def test_diffusers_loads_the_whole_pipeline(tiny_pipeline, weights, family, part, tmp_path):
    """The network is the trained one, and all other parts are those of the original."""
    from diffusers import DiffusionPipeline

    trained = weights(family, part)
    folder = save_pipeline(tmp_path / "new", pretrained(tiny_pipeline(family)), trained, None, METADATA)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    state = getattr(pipeline, part).state_dict()
    assert all(torch.equal(state[name], trained[name]) for name in trained)
    original = DiffusionPipeline.from_pretrained(tiny_pipeline(family))
    assert pipeline.components.keys() == original.components.keys()
    vae, wanted = pipeline.vae.state_dict(), original.vae.state_dict()
    assert all(torch.equal(vae[name], wanted[name]) for name in wanted)
    (file,) = (folder / part).glob("*.safetensors")
    assert read_metadata(file)["workflow"] == "{}"


def test_pickles_are_not_handed_on(tiny_pipeline, weights, tmp_path):
    """Copied are safetensors and settings only."""
    source = shutil.copytree(tiny_pipeline("sd"), tmp_path / "old")
    (source / "text_encoder" / "pytorch_model.bin").write_bytes(b"pickle")
    folder = save_pipeline(tmp_path / "new", pretrained(source), weights("sd"), None, METADATA)
    assert list(folder.rglob("*.bin")) == []
    assert (folder / "text_encoder" / "model.safetensors").is_file()


def test_another_vae_comes_along(tiny_pipeline, weights, tmp_path):
    """The one that was trained with, not the original's."""
    from diffusers import AutoencoderKL

    other = AutoencoderKL.from_pretrained(tiny_pipeline("sd"), subfolder="vae")
    torch.nn.init.constant_(other.decoder.conv_out.bias, 7.0)
    other.save_pretrained(tmp_path / "vae")
    model = pretrained(tiny_pipeline("sd"), vae=str(tmp_path / "vae"), storage="fp32")
    folder = save_pipeline(tmp_path / "new", model, weights("sd"), None, METADATA)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    assert vae.decoder.conv_out.bias.tolist() == [7.0] * 3
    assert json.loads((folder / "model_index.json").read_text())["unet"][1] == "UNet2DConditionModel"
    assert inspect(Source(str(folder))).family == "sd"


def test_the_sampler_is_told_what_is_predicted(tiny_pipeline, weights, tmp_path):
    """A model that was turned to v-prediction with zero terminal SNR is sampled so."""
    model, schedule = pretrained(tiny_pipeline("sd")), DDPM(prediction="v_prediction", zero_terminal_snr=True)
    folder = save_pipeline(tmp_path / "new", model, weights("sd"), schedule, METADATA)
    told = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (told["prediction_type"], told["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert inspect(Source(str(folder))).schedule == schedule
    assert json.loads((folder / "schedule.json").read_text())["type"] == "ddpm"


def test_a_shift_for_training_is_none_for_sampling(tiny_pipeline, weights, tmp_path):
    """Flow matching samples with the original's own levels, however they were drawn."""
    model, before = pretrained(tiny_pipeline("flux")), tiny_pipeline("flux") / "scheduler" / "scheduler_config.json"
    folder = save_pipeline(tmp_path / "new", model, weights("flux", "transformer"), FlowMatching(shift=9.0), METADATA)
    assert (folder / "scheduler" / "scheduler_config.json").read_text() == before.read_text()


def test_nothing_half_written_is_left(tiny_pipeline, weights, tmp_path, monkeypatch):
    """A full disk in the middle: no folder."""
    monkeypatch.setattr("safetensors.torch.save_file", lambda *data: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_pipeline(tmp_path / "new", pretrained(tiny_pipeline("sd")), weights("sd"), None, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_one_file_holds_the_network_alone(tiny_pipeline, weights, tmp_path):
    """By diffusers' names; what is written is read again."""
    trained = weights("sd")
    path = save_single_file(tmp_path / "a.safetensors", pretrained(tiny_pipeline("sd")), trained, METADATA)
    back = read_weights(path)
    assert back.keys() == trained.keys()
    assert all(torch.equal(back[name], trained[name]) for name in trained)


def test_a_network_that_comfyui_does_not_know_so_is_refused(tiny_pipeline, tmp_path):
    """Its layers have other names there."""
    with pytest.raises(ValueError, match="ComfyUI knows no single file of Lumina"):
        save_single_file(tmp_path / "a.safetensors", pretrained(tiny_pipeline("lumina2")), {}, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_what_was_written_is_noticed(tiny_pipeline, weights, tmp_path, monkeypatch):
    """A failing disk: the numbers differ."""
    import safetensors.torch

    save = safetensors.torch.save_file

    def fail(tensors, path, metadata):
        save({name: value * 2 for name, value in tensors.items()}, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(ValueError, match=r"a\.safetensors was not written as it should be, e\.g\. "):
        save_single_file(tmp_path / "a.safetensors", pretrained(tiny_pipeline("sd")), weights("sd"), METADATA)
    assert list(tmp_path.iterdir()) == []
