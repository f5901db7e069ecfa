"""What a model is, from its small files, and what is refused."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.index import read_index
from comfyui_rollout.models.loading.load import load_parts
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect, schedule_of
from comfyui_rollout.models.loading.source import Source
from loaded import NETWORK_FILE, parts
from original_names import write_header

NEWER = f"Stable Diffusion 3.* needs diffusers 99.9 or newer, and {version('diffusers')} is installed: pip install .*"


@pytest.fixture
def changed(tiny_pipeline, tmp_path):
    """``changed(family, "unet/config.json", key=value)``: a copy of a tiny pipeline, with other settings."""

    def copy(family, file, **values):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_pipeline(family), folder)
        settings = {**json.loads((folder / file).read_text()), **values}
        (folder / file).write_text(json.dumps(settings))
        return Source(str(folder))

    return copy


def test_a_file_and_its_base_must_be_of_one_family(single_file, tiny_pipeline):
    source = Source(str(single_file("sdxl")), base=str(tiny_pipeline("flux")))
    with pytest.raises(ValueError, match=r"base: .* is FLUX.1, and the file .* is Stable Diffusion XL"):
        inspect(source)


def test_a_v_prediction_file_says_so(single_file, tiny_pipeline):
    """SDXL's carry the marks that ComfyUI goes by; the node's own choice goes before them."""
    source = Source(str(single_file("sdxl", v_pred=1, ztsnr=1)), base=str(tiny_pipeline("sdxl")))
    assert inspect(source).schedule == DDPM(prediction="v_prediction", zero_terminal_snr=True)
    source = Source(str(single_file("sdxl", v_pred=1)), base=str(tiny_pipeline("sdxl")), prediction="epsilon")
    assert inspect(source).schedule == DDPM()


def test_a_file_of_stable_diffusion_2_must_be_told_its_prediction(tiny_pipeline, tmp_path, monkeypatch):
    """Base models predict epsilon, the others v, and no tensor tells them apart: a guess would train the wrong one."""
    shapes = {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    }
    names = {f"model.diffusion_model.{name}": shape for name, shape in shapes.items()}
    source = Source(str(write_header(tmp_path / "v2.safetensors", **names)))
    with pytest.raises(ValueError, match=r"prediction: the file .*v2.safetensors' does not say .* choose epsilon"):
        inspect(source)
    monkeypatch.setattr("comfyui_rollout.models.loading.recognise.check_network", lambda *where: None)  # a header only
    monkeypatch.setattr("comfyui_rollout.models.loading.source.default_base", lambda path: str(tiny_pipeline("sd")))
    for prediction in ("epsilon", "v_prediction"):
        assert inspect(replace(source, prediction=prediction)).schedule.prediction == prediction
    assert inspect(replace(source, base=str(tiny_pipeline("sd")))).schedule.prediction == "epsilon"


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae"])
def test_a_folder_that_lacks_a_part_says_which(tiny_pipeline, tmp_path, part):
    """Half a download is told in one line when the part is needed; who has encoded everything needs none of them."""
    folder = shutil.copytree(tiny_pipeline("sd"), tmp_path / "half")
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=f"half' lacks {part}: get its folder whole") as refusal:
        parts(Source(str(folder)))
    assert "\n" not in str(refusal.value)
    assert inspect(Source(str(folder))).family == "sd"


@pytest.mark.parametrize("suffix", ["ckpt", "bin", "pt", "CKPT"])
def test_pickled_files_are_refused(tmp_path, suffix):
    """They are not opened at all, and the line says why."""
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is a pickled file, which can run any code when it is opened"):
        inspect(Source(str(path)))


def test_a_folder_of_pickled_weights_is_refused(tiny_pipeline, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(tiny_pipeline("sd"), folder)
    (folder / "unet" / NETWORK_FILE).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model.bin' is a pickled file"):
        inspect(Source(str(folder)))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("StableDiffusionInpaintPipeline", "is an inpainting model, whose extra inputs"),
        ("FluxFillPipeline", "is an inpainting model"),
        ("StableDiffusionXLImg2ImgPipeline", "is the refiner of Stable Diffusion XL"),
        ("LTXPipeline", "is a LTXPipeline, and we can train Stable Diffusion 1.x"),
    ],
)
def test_pipelines_of_another_purpose_are_refused(changed, name, line):
    with pytest.raises(ValueError, match=line):
        inspect(changed("sd", "model_index.json", _class_name=name))


def test_an_inpainting_network_is_refused(changed):
    """Also where its pipeline does not say so."""
    with pytest.raises(ValueError, match="it takes 9 channels and gives 4"):
        inspect(changed("sd", "unet/config.json", in_channels=9))


@pytest.mark.parametrize("path", ["nowhere", "nowhere/at/all", "~/nowhere/at/all"])
def test_what_is_not_there_is_named(path):
    with pytest.raises(ValueError, match=r"does not exist: give a folder, a .safetensors file or a hub id"):
        inspect(Source(path))


def test_a_folder_that_is_no_pipeline_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not a pipeline's folder: it has no model_index.json"):
        inspect(Source(str(tmp_path)))


def test_schedules_are_read_from_the_settings(changed):
    """DDPM's tables with what the network predicts, flow matching with its shift."""
    source = changed(
        "sd", "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    assert inspect(source).schedule == DDPM("scaled_linear", "v_prediction", zero_terminal_snr=True)


def test_flow_schedules():
    """A fixed shift, one that grows with the image, and the solvers that say it in their own words."""
    assert schedule_of({"shift": 3.0}, "logit_normal") == FlowMatching(shift=3.0, density="logit_normal")
    grows = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert schedule_of(grows, "uniform") == FlowMatching(base_shift=0.5, max_shift=1.15)
    solver = {"beta_schedule": "linear", "use_flow_sigmas": True, "flow_shift": 4.0}
    assert schedule_of(solver, "uniform") == FlowMatching(shift=4.0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "EDMEulerScheduler is none that we know"),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 100}, "has 100 training timesteps, and we know 1000"),
    ],
)
def test_unknown_schedules_are_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        schedule_of(settings, "uniform")


def test_a_family_of_a_newer_diffusers_is_one_line(tiny_pipeline, monkeypatch):
    """requirements.txt allows versions without Krea 2."""
    monkeypatch.setattr(PRETRAINED["sd3"], "since", "99.9")
    with pytest.raises(ValueError, match=rf"^{NEWER}$"):
        inspect(Source(str(tiny_pipeline("sd3"))))


def test_a_family_of_a_newer_diffusers_is_not_offered(tiny_pipeline, tmp_path, monkeypatch):
    """Who chose a folder of something else reads what can be had here, and what with an upgrade."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "Other"}')
    monkeypatch.setattr(PRETRAINED["sd3"], "since", "99.9")
    title = PRETRAINED["sd3"].title
    with pytest.raises(ValueError, match=rf"; with an upgrade also .*{title} \(diffusers 99.9 or newer\)") as refused:
        inspect(Source(str(tmp_path)))
    assert title not in str(refused.value).split("; with an upgrade")[0]


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_it_is_true_which_diffusers_has_a_family(family):
    """Asked of the installed one, which is another with `make test` and with `make test-lowest`."""
    import diffusers

    kind = PRETRAINED[family]
    there = hasattr(diffusers, kind.pipeline_class) and hasattr(diffusers, kind.network_class)
    assert there == (not kind.too_new())


def test_nothing_is_loaded_to_know_a_model(tiny_pipeline, tmp_path):
    """inspect() reads settings only: it works in a folder without any weights."""
    folder = tmp_path / "empty"
    shutil.copytree(tiny_pipeline("flux"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    info = inspect(Source(str(folder)))
    assert (info.family, info.channels) == ("flux", 8)
    assert not list(Path(folder).rglob("*.safetensors"))
    assert Pretrained(Source(str(folder)), info).in_words() == "FLUX.1, to be downloaded"


def test_an_index_without_classes_says_what_parts_have_to_be(tiny_pipeline, tmp_path):
    """As a modular pipeline that was saved before it was loaded has it; what lies elsewhere is no part."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline("flux3"), folder)
    path = folder / "modular_model_index.json"
    index = json.loads(path.read_text())
    bare = {name: [None, None, value[2]] if isinstance(value, list) else value for name, value in index.items()}
    path.write_text(json.dumps(bare))
    assert read_index(folder)["vae"] == ["diffusers", "AutoencoderKLFlux2"]
    assert read_index(folder)["prompt_upsampler"] == [None, None]
    source = Source(str(folder), storage="fp32")
    parts = load_parts(source, inspect(source), ["vae", "text_encoder"])
    assert None not in (parts.vae, parts.text_encoder)
