"""The encoders of pretrained models: loaded only to encode, and known by their weights."""

import gc
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
from comfyui_rollout.data.encodings.encoders import PretrainedEncoders, identity
from comfyui_rollout.models.families.vae import downscaling
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from safetensors.torch import load_file, save_file


@pytest.fixture
def encoders(tiny_pipeline):
    """``encoders("sd", storage="bf16")``: of a tiny pipeline; ``path`` for a changed copy of one."""

    def make(family, path=None, **options):
        source = Source(str(path or tiny_pipeline(family)), **{"storage": "fp32", **options})
        return PretrainedEncoders(Pretrained(source, inspect(source)))

    return make


def identities(encoders):
    return encoders.text_identity, encoders.image_identity


def retrain(folder, part, change=lambda value: value + 0.01):
    """Give a part of the pipeline other weights, in a file of the same header and length."""
    (path,) = (folder / part).glob("*.safetensors")
    save_file({name: change(value) for name, value in load_file(path).items()}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("family", "channels", "classes", "multiple"), [("sd", 4, 0, 64), ("flux", 8, 0, 16), ("dit", 4, 5, 16)]
)
def test_what_is_known_before_anything_is_loaded(encoders, monkeypatch, family, channels, classes, multiple):
    """Channels, classes, and which sizes the model takes, from the small files."""
    found = encoders(family)
    monkeypatch.setattr("comfyui_rollout.data.encodings.encoders.load_parts", None)
    assert (found.family, found.factor, found.multiple) == (family, 8, multiple)
    assert found.channels == channels
    assert bool(found.classes) == bool(classes)


def test_results_of_another_format_are_encoded_anew(encoders, monkeypatch):
    """The cache outlives the program: what an older one kept for a caption may lack what this one needs."""
    before = identities(encoders("sd"))
    monkeypatch.setattr("comfyui_rollout.data.encodings.encoders.TEXT_FORMAT", -1)
    monkeypatch.setattr("comfyui_rollout.data.encodings.encoders.IMAGE_FORMAT", -1)
    after = identities(encoders("sd"))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_captions_are_encoded_as_the_pipeline_does(encoders, tiny_pipeline):
    """The tensors that diffusers' own pipeline makes for the same words."""
    from diffusers import StableDiffusionPipeline

    with encoders("sd").text("cpu") as encode:
        told = encode(["a cat", ""])
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline("sd"), vae=None, unet=None)
    expected, _ = pipeline.encode_prompt(["a cat", ""], "cpu", 1, False)
    assert torch.equal(told["text"], expected)


def test_images_are_encoded_as_the_vae_does(encoders, tiny_pipeline):
    """The likeliest latents, scaled, in float32."""
    from diffusers import AutoencoderKL

    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae = AutoencoderKL.from_pretrained(tiny_pipeline("sd"), subfolder="vae")
    with torch.no_grad():
        expected = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
        with encoders("sd", storage="bf16").images("cpu") as encode:
            latents = encode(images)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, expected)  # in float32 although the network is kept in 16 bits: it says force_upcast


@pytest.mark.parametrize("kind", ["text", "images"])
def test_encoders_leave_memory(encoders, kind, monkeypatch):
    """Also while the caller still has the function that encoded."""
    from comfyui_rollout.data.encodings import encoders as module

    loaded, plain = [], module.load_parts

    def load_parts(*arguments):
        pipeline = plain(*arguments)
        loaded.append(weakref.ref(pipeline.vae if kind == "images" else pipeline.text_encoder))
        return pipeline

    monkeypatch.setattr(module, "load_parts", load_parts)
    with getattr(encoders("sd"), kind)("cpu") as encode:
        assert loaded[0]() is not None
    gc.collect()
    assert loaded[0]() is None
    assert encode is not None


def test_a_copy_of_a_model_is_the_same_model(encoders, tiny_pipeline, tmp_path):
    """Moving it to another disk must not encode everything anew."""
    copy = shutil.copytree(tiny_pipeline("sd"), tmp_path / "copy", copy_function=shutil.copyfile)
    assert identities(encoders("sd", copy)) == identities(encoders("sd"))


def test_a_part_that_is_not_there_is_the_same_everywhere(encoders, tiny_pipelines, tmp_path):
    """SD3 does without its T5; a copy of such a model is the same model, too."""
    folder = tiny_pipelines.save("sd3", tmp_path / "sd3", t5=False)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert identities(encoders("sd3", copy)) == identities(encoders("sd3", folder)) != identities(encoders("sd3"))


def test_a_model_without_one_of_its_encoders_encodes(encoders, tiny_pipelines, tmp_path):
    """SD3 as people have it who leave its T5, the largest part, out."""
    folder = tiny_pipelines.save("sd3", tmp_path / "sd3", t5=False)
    with encoders("sd3", folder).text("cpu") as encode:
        told = encode(["a cat", "a dog"])
    assert all(value.isfinite().all() for value in told.values())
    assert not torch.equal(*told["text"])


@pytest.mark.parametrize(("part", "text", "image"), [("text_encoder", 0, 1), ("vae", 1, 0), ("unet", 1, 1)])
def test_other_weights_are_another_encoder(encoders, tiny_pipeline, tmp_path, part, text, image):
    """Found by their numbers, of a file of the same length; a fine-tuned network alone changes neither."""
    copy = shutil.copytree(tiny_pipeline("sd"), tmp_path / "copy")
    retrain(copy, part)
    same = [a == b for a, b in zip(identities(encoders("sd", copy)), identities(encoders("sd")), strict=True)]
    assert same == [text, image]


def test_the_number_format_is_part_of_it(encoders):
    """Text in 16 bits is other text; the VAE says that it stays in 32."""
    full, half = identities(encoders("sd")), identities(encoders("sd", storage="bf16"))
    assert full[0] != half[0]
    assert full[1] == half[1]


def test_another_vae_is_another_encoder(encoders, tiny_pipeline, tmp_path):
    """Whether it comes as a folder or as a file; and it is the one that encodes."""
    vae = shutil.copytree(tiny_pipeline("sd") / "vae", tmp_path / "vae")
    own = encoders("sd")
    retrain(tmp_path, "vae")
    other = encoders("sd", vae=str(vae))
    assert other.image_identity != own.image_identity
    assert other.text_identity == own.text_identity
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad(), own.images("cpu") as one, other.images("cpu") as two:
        assert not torch.equal(one(images), two(images))


def test_a_checkpoint_file_brings_its_own_encoders(tiny_pipeline, tmp_path):
    """What it holds goes by the file, what it lacks by the pipeline that completes it."""
    folder, file = tiny_pipeline("sd"), tmp_path / "merged.safetensors"
    save_file({"first_stage_model.encoder.weight": torch.ones(3)}, file)
    whole, merged = Source(str(folder)), Source(str(file), base=str(folder))
    names = {part: [identity(source, folder, part) for source in (whole, merged)] for part in ("vae", "text_encoder")}
    assert names["vae"][0] != names["vae"][1]
    assert names["text_encoder"][0] == names["text_encoder"][1]


def test_other_text_encoder_files_are_other_encoders(tiny_pipeline, tmp_path):
    """Named in Load Pretrained, they stand in for the model's own."""
    file = tmp_path / "clip.safetensors"
    save_file({"weight": torch.ones(3)}, file)
    whole = Source(str(tiny_pipeline("sd")), storage="fp32")
    pretrained = Pretrained(whole, inspect(whole))
    own = PretrainedEncoders(pretrained)
    other = PretrainedEncoders(replace(pretrained, source=replace(whole, text_encoders=(str(file),))))
    assert own.text_identity != other.text_identity
    assert own.image_identity == other.image_identity


def test_sizes_are_those_of_the_family(encoders):
    """SDXL is told the original size, the cut and the size; Stable Diffusion is not."""
    told = ((1000, 600), (10, 0), (64, 64))
    assert encoders("sdxl").describe_size(*told)["time_ids"].tolist() == [[1000, 600, 10, 0, 64, 64]]
    assert encoders("sd").describe_size(*told) == {}


@pytest.mark.parametrize(
    ("config", "factor"),
    [({"block_out_channels": [1, 2, 4, 4]}, 8), ({"encoder_block_out_channels": [1] * 6}, 32)],
)
def test_the_size_of_latents_is_known_from_the_settings(config, factor):
    """Every level of a VAE but the last halves the image."""
    assert downscaling(config) == factor


def test_a_vae_of_another_kind_is_refused():
    """Rather than encoding images of a wrong size."""
    with pytest.raises(ValueError, match="the VAE Odd is none whose latents' size we know"):
        downscaling({"_class_name": "Odd"})
