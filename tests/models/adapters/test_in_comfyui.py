"""What we write is what ComfyUI's own code understands.

COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON=/its/python python -m pytest tests/models/adapters/test_in_comfyui.py
"""

import copy
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import tiny_pipelines
import torch
from comfyui_rollout.models.adapters.dora import for_comfyui, turned_by_comfyui, weights_of
from comfyui_rollout.models.adapters.formats import to_file
from comfyui_rollout.models.adapters.layers import DOWN, UP, LayerAdapter
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.adapters.network import merged_weights
from comfyui_rollout.models.adapters.text_encoders import ATTACHED, TARGETS
from own_networks import READERS
from safetensors.torch import save_file

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="set COMFYUI_PATH, and COMFYUI_PYTHON")

SCRIPT = Path(__file__).parents[2] / "support" / "patch_in_comfyui.py"


def sd():
    return tiny_pipelines.unet()


def sdxl():
    return tiny_pipelines.unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )


def sd3():
    """ComfyUI knows the width from the depth: 64 times as much."""
    return tiny_pipelines.sd3_network(
        attention_head_dim=64, caption_projection_dim=128, dual_attention_layers=(0,), qk_norm="rms_norm"
    )


def zimage():
    return tiny_pipelines.zimage(None).transformer


def flux2_dev():
    return tiny_pipelines.flux2_network(guidance_embeds=True)


def flux():
    return tiny_pipelines.flux_network(num_layers=2)


UNET = {"num_res_blocks": [1, 1], "channel_mult": [1, 2]}
NETWORKS = {
    "sd": (sd, "BaseModel", {**UNET, "transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0],
                             "transformer_depth_middle": 1}),
    "sdxl": (sdxl, "SDXL", {**UNET, "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2],
                            "transformer_depth_middle": 2}),
    "sd3": (sd3, "SD3", {"depth": 2}),
    "flux": (flux, "Flux", {"depth": 2, "depth_single_blocks": 2, "hidden_size": 16}),
    "zimage": (zimage, "Lumina2", {"n_layers": 2, "dim": 16, "n_refiner_layers": 1}),
    "flux2_klein": (tiny_pipelines.flux2_network, "Flux2", {"depth": 1, "depth_single_blocks": 2, "hidden_size": 16}),
    "flux2_dev": (flux2_dev, "Flux2", {"depth": 1, "depth_single_blocks": 2, "hidden_size": 16}),
    "qwen_image": (tiny_pipelines.qwen_image_network, "QwenImage", {}),
    "krea2": (tiny_pipelines.krea2_network, "Krea2", {"layers": 2}),
    "wan": (tiny_pipelines.wan_network, "WAN21", {}),
    "ernie_image": (tiny_pipelines.ernie_image_network, "ErnieImage", {}),
    "hidream": (tiny_pipelines.hidream_network, "HiDream", {}),
    "anima": (tiny_pipelines.anima_network, "Anima", {}),
    "ideogram4": (tiny_pipelines.ideogram4_network, "Ideogram4", {}),
    "longcat_image": (tiny_pipelines.longcat_network, "LongCatImage",
                      {"depth": 1, "depth_single_blocks": 2, "hidden_size": 16}),
    "chroma": (tiny_pipelines.chroma_network, "Chroma", {"depth": 1, "depth_single_blocks": 2, "hidden_size": 16}),
}  # fmt: skip


CONVERTED = ("sd", "sdxl", "sd3", "flux", "zimage")
"""Networks that ComfyUI converts itself. The weights of others are given by the original names, which test_original.py
checks against diffusers' converters."""


def test_every_family_is_loaded():
    """All but Lumina 2 and Qwen-Image 2.1, for which there is no job here yet, and FLUX.3, which is not written."""
    assert {*NETWORKS} == {*READERS} - {"lumina2", "qwen_image_21", "flux3"}


def by_original_names(weights, names):
    """A network's weights as ComfyUI has them; only those of layers."""
    found = {}
    for original, layers in (names.groups or {layer: (layer,) for layer in names.layers}).items():
        joined = torch.cat([weights[f"{layer}.weight"] for layer in layers])
        turned = names.turned(layers[0])
        found[f"diffusion_model.{original}.weight"] = torch.cat(joined.chunk(2)[::-1]) if turned else joined
    return found


FORMATS, KINDS = ("comfyui", "kohya"), ("lora", "lokr", "loha", "dora")


def write(folder, family, format, kind, adapted, change):
    """A job for ComfyUI: a network, an adapter on all its layers, and the weights that they make together."""
    make, model, config = NETWORKS[family]
    torch.manual_seed(0)
    network = make()
    plain = network.state_dict()
    settings = {"dora": True} if kind == "dora" else {"kind": kind}
    made = adapted(copy.deepcopy(network), family, **settings)
    expected = dict(plain)
    for layer, delta in change(made.network).items():
        expected[f"{layer}.weight"] = plain[f"{layer}.weight"] + delta
    if kind == "dora" and format == "comfyui":
        is_turned = turned_by_comfyui(made.names.network_class, made.names.layers)
        made.adapter = for_comfyui(made.adapter, weights_of(made.network, made.adapter), is_turned)
    tensors = to_file(made.adapter, format, made.names, made.part)
    if kind == "dora":
        expected = merged_weights(made.model)
    if family not in CONVERTED:
        plain, expected = (by_original_names(weights, made.names) for weights in (plain, expected))
    folder.mkdir()
    job = {"class": model, "unet_config": config}
    for name, content in (("weights", plain), ("lora", tensors), ("expected", expected)):
        job[name] = str(folder / f"{name}.safetensors")
        save_file({key: value.detach().contiguous() for key, value in content.items()}, job[name])
    return job


CLIPS = {
    "sd": {"text_encoder": "clip_l"},
    "sd2": {"text_encoder": "clip_h"},
    "sdxl": {"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
}
"""Text encoders, by diffusers' name and by ComfyUI's."""


def write_text(folder, family, format):
    """A job for ComfyUI: text encoders, and an adapter on their attention."""
    network = NETWORKS[family.removesuffix("2")][0]()
    generator = torch.Generator().manual_seed(0)
    adapter, weights, expected = {}, {}, {}
    for (part, theirs), block, layer in product(CLIPS[family].items(), range(2), TARGETS):
        name = f"text_model.encoder.layers.{block}.self_attn.{layer}"
        plain, down, up = (torch.randn(shape, generator=generator) for shape in ((8, 8), (2, 8), (8, 2)))
        adapter[f"{ATTACHED}{part}.{name}"] = LayerAdapter({DOWN: down, UP: up}, 1.5)
        weights[f"{theirs}.transformer.{name}.weight"] = plain
        expected[f"{theirs}.transformer.{name}.weight"] = plain + 1.5 * up @ down
    tensors = to_file(adapter, format, names_of(type(network).__name__, network.config), "unet")
    folder.mkdir()
    job = {}
    for name, content in (("weights", weights), ("lora", tensors), ("expected", expected)):
        job[name] = str(folder / f"{name}.safetensors")
        save_file(content, job[name])
    return job


def can(family, format, kind):
    """Whether there is such a file: q, k and v of a LoKr cannot be joined into one layer."""
    return family not in ("lumina2", "ideogram4") or kind != "lokr"


@pytest.fixture(scope="module")
def answers(tmp_path_factory, adapted, change):
    """What ComfyUI makes of each file, by (family, format, kind)."""
    folder, cases = tmp_path_factory.mktemp("jobs"), [case for case in product(NETWORKS, FORMATS, KINDS) if can(*case)]
    jobs = [write(folder / "_".join(case), *case, adapted, change) for case in cases]
    texts = [(family, format, "text") for family, format in product(CLIPS, FORMATS)]
    jobs += [write_text(folder / "_".join(case), *case[:2]) for case in texts]
    cases += texts
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [os.environ.get("COMFYUI_PYTHON", sys.executable), str(SCRIPT), str(folder / "jobs.json")]
    environment = {**os.environ, "PYTHONPATH": os.environ["COMFYUI_PATH"]}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    return dict(zip(cases, json.loads(process.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", NETWORKS)
def test_comfyui_computes_the_very_weights_that_were_trained(family, format, kind, answers):
    """On every layer of the network: no key is unknown, and W + alpha / rank * B A comes out."""
    if not can(family, format, kind):
        pytest.skip("a LoKr of several layers is none of one")
    answer = answers[family, format, kind]
    assert answer["unknown"] == []
    assert answer["patched"] > 0
    assert answer["off"] < 1e-5, answer["worst"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", CLIPS)
def test_comfyui_reads_what_text_encoders_have_learnt(family, format, answers):
    """On every layer of each of them."""
    answer = answers[family, format, "text"]
    assert answer["unknown"] == []
    assert answer["patched"] == 8 * len(CLIPS[family])
    assert answer["off"] < 1e-5, answer["worst"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", NETWORKS)
def test_comfyui_knows_every_key_of_a_dora(family, format, answers):
    """It divides by the lengths of the base's rows, not of the sum's, which our files for it make up for."""
    answer = answers[family, format, "dora"]
    assert answer["unknown"] == []
    assert answer["patched"] > 0
    if format == "comfyui":
        assert answer["off"] < 1e-5, answer["worst"]
