"""How much memory weights need, before any of them is read."""

import pytest
import torch
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import encoders_of, inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.loading.weight_count import (
    in_words,
    network_bytes,
    training_bytes,
    variant_of,
    weight_files,
)
from original_names import ldm_unet, ldm_vae, write, write_header
from tiny_pipelines import unread


def saved_tensors(network):
    """Each tensor once, whatever number of names it has: T5 has one table of tokens under two."""
    return {value.data_ptr(): value for value in network.state_dict().values()}.values()


def count(network):
    return sum(value.numel() for value in saved_tensors(network))


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_every_component_is_counted(tiny_pipeline, family):
    """The same numbers as those of the loaded networks."""
    kind = PRETRAINED[family]
    source = Source(str(tiny_pipeline(family)))
    pipeline = kind.pipeline().from_pretrained(source.path, use_safetensors=True, **unread(kind))
    names = [kind.network_part, "vae", *encoders_of(kind)]
    counted = Pretrained(source, inspect(source)).weights()
    # Parameters, and the buffers that are in the files too, such as SD3's table of positions.
    saved = {name: saved_tensors(pipeline.components[name]) for name in names}
    assert counted == {name: sum(value.numel() for value in tensors) for name, tensors in saved.items()}


def test_a_file_is_counted_by_its_parts(tiny_pipeline, tmp_path):
    """What the file holds counts from the file, the rest from its base; averaged copies count for nothing."""
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tiny_pipeline("sd"), use_safetensors=True)
    averaged = {"model_ema.something": torch.zeros(10**6)}
    path = write(tmp_path / "all.safetensors", ldm_unet(pipeline.unet), ldm_vae(pipeline.vae), averaged)
    source = Source(str(path), base=str(tiny_pipeline("sd")))
    counted = Pretrained(source, inspect(source)).weights()
    assert counted == {
        "unet": count(pipeline.unet), "vae": count(pipeline.vae), "text_encoder": count(pipeline.text_encoder)
    }  # fmt: skip


def test_one_variant_is_counted(tmp_path):
    """The plain files, all shards of them; those in half precision only where there are no others."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    half = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
    for name in [*half, "model.non_ema.safetensors"]:
        write_header(tmp_path / name, weight=(3, 3))
    assert [path.name for path in weight_files(tmp_path)] == half
    for name in names:
        write_header(tmp_path / name, weight=(3, 3))
    assert [path.name for path in weight_files(tmp_path)] == names
    assert [variant_of(tmp_path / name) for name in ("a.safetensors", half[0])] == ["", "fp16"]


def test_bytes():
    """Frozen weights as they are stored; trained ones with gradient and AdamW's moments, 16 bytes each."""
    weights = {"transformer": 1000, "vae": 10}
    assert network_bytes(Source("", storage="bf16"), 1000) == 2000
    assert network_bytes(Source("", storage="fp32"), 1000) == 4000
    assert network_bytes(Source("", quantization="nf4"), 1000) == 500
    assert training_bytes(weights, Source(""), "transformer", trained=10) == 2000 + 160
    assert training_bytes(weights, Source("", quantization="int8"), "transformer", trained=10) == 1000 + 160
    assert training_bytes(weights, Source(""), "transformer", trained=1000) == 16000


@pytest.mark.parametrize(
    ("number", "unit", "words"),
    [
        (2_567_463_684, "", "2.57 B"),
        (5_134_927_368, "B", "5.1 GB"),
        (859_520_964, "", "860 M"),
        (1_719_041_928, "B", "1.7 GB"),
        (52_004, "", "52 k"),
        (208_016, "B", "208 kB"),
        (12, "B", "12 B"),
    ],
)
def test_in_words(number, unit, words):
    assert in_words(number, unit) == words


def test_a_model_in_words(tmp_path, tiny_pipeline, monkeypatch):
    """What Load Pretrained shows: real sizes, from headers of real shapes."""
    monkeypatch.setattr("comfyui_rollout.models.loading.recognise.check_network", lambda *where: None)  # a header only
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.all_the_rest": (2_563_847_684,),
    }
    path = write_header(tmp_path / "sdxl.safetensors", **shapes)
    source = Source(str(path), base=str(tiny_pipeline("sdxl")))
    info = inspect(source)
    assert Pretrained(source, info).in_words() == "Stable Diffusion XL, 2.57 B weights, 5.1 GB in bf16"
    source = Source(str(path), base=str(tiny_pipeline("sdxl")), quantization="int8")
    assert Pretrained(source, info).in_words() == "Stable Diffusion XL, 2.57 B weights, 2.6 GB in int8"
