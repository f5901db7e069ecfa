"""What a checkpoint of one file is, from its header alone: of files of real shapes, only that is on disk."""

import pytest
from comfyui_rollout.models.loading.single_file import default_base, family_of_file, parts_in
from original_names import write_header

UNET = "model.diffusion_model."
V1 = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
}
V2 = V1 | {f"{UNET}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}
SDXL_NETWORK = {f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3), f"{UNET}label_emb.0.0.weight": (1280, 2816)}
SDXL = SDXL_NETWORK | {
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": (768,),
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
    "first_stage_model.decoder.conv_in.bias": (512,),
}
REFINER = {"conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)}
NINE = {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}
SD3 = {"joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,), "pos_embed": (1, 36864, 1536)}
SD35_MEDIUM = SD3 | {"pos_embed": (1, 147456, 1536)}
SD35_LARGE = {"joint_blocks.37.x_block.mlp.fc1.weight": (9728, 2432)}
CLIP_IN = {"vector_in.in_layer.bias": (3072,)}
FLUX = CLIP_IN | {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64)}
FLUX_DEV = FLUX | {"guidance_in.in_layer.bias": (3072,)}
LUMINA = {"cap_embedder.0.weight": (2304,)}
LORA = {"lora_unet_mid_block.lora_down.weight": (4, 4)}
SCALED = FLUX_DEV | {"double_blocks.0.img_attn.qkv.scale_weight": (1,)}


@pytest.fixture
def file(tmp_path):
    """``file(tensors)``: the path of a file that says it holds them."""
    return lambda tensors: str(write_header(tmp_path / "model.safetensors", **tensors))


@pytest.mark.parametrize(
    ("tensors", "family", "base"),
    [
        (V1, "sd", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        (V2, "sd", "stabilityai/stable-diffusion-2-1"),
        (SDXL, "sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        (SDXL_NETWORK, "sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        (SD3, "sd3", "stabilityai/stable-diffusion-3-medium-diffusers"),
        (SD35_MEDIUM, "sd3", "stabilityai/stable-diffusion-3.5-medium"),
        (SD35_LARGE, "sd3", "stabilityai/stable-diffusion-3.5-large"),
        (FLUX_DEV, "flux", "black-forest-labs/FLUX.1-dev"),
        (SCALED, "flux", "black-forest-labs/FLUX.1-dev"),
        (FLUX, "flux", "black-forest-labs/FLUX.1-schnell"),
        ({UNET + name: shape for name, shape in FLUX_DEV.items()}, "flux", "black-forest-labs/FLUX.1-dev"),
        (LUMINA, "lumina2", "Alpha-VLLM/Lumina-Image-2.0"),
        (
            {
                "net.blocks.0.self_attn.q_proj.weight": (2048, 2048),
                "net.llm_adapter.blocks.0.cross_attn.q_proj.weight": (1024, 1024),
            },
            "anima",
            "circlestone-labs/Anima-Base-v1.0-Diffusers",
        ),
        (
            {f"{UNET}embed_image_indicator.weight": (2, 4608)},
            "ideogram4",
            "CalamitousFelicitousness/Ideogram-4-bf16-Diffusers",
        ),
    ],
)
def test_families_are_known_by_their_headers(file, tensors, family, base):
    """Checkpoints and files of the network alone; each is completed by its family's original."""
    path = file(tensors)
    assert family_of_file(path) == family
    assert default_base(path) == base


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        (V1 | NINE, "is an inpainting model, whose extra inputs"),
        (V2 | NINE, "is an inpainting model, whose extra inputs"),
        (SDXL | NINE, "is an inpainting model, whose extra inputs"),
        (FLUX_DEV | {"img_in.weight": (3072, 384)}, "is an inpainting model, whose extra inputs"),
        (FLUX_DEV | {"img_in.weight": (3072, 128)}, "is a depth model, whose extra input"),
        (REFINER, "is the refiner of Stable Diffusion XL"),
        ({"control_model.time_embed.0.weight": (8, 8)}, "is a ControlNet"),
        (
            {"txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": (8,)},
            "looks like 'hunyuan-video', and we can train Stable Diffusion 1.x",
        ),
        (SDXL | {"edm_mean": (4,)}, "looks like 'playground-v2-5', and we can train"),
        (LORA, "is a LoRA: choose the model that it was made for"),
        (SCALED | {"vae.decoder.conv_in.bias": (8,)}, "holds scaled fp8 weights of vae beside the network's"),
        ({"something": (2, 2)}, "is no checkpoint that we know; .* name its pipeline in base"),
    ],
)
def test_what_cannot_be_trained_is_refused(file, tensors, line):
    """In one line that says what it is and what to choose instead."""
    path = file(tensors)
    with pytest.raises(ValueError, match=f"model.safetensors' {line}"):
        family_of_file(path)


@pytest.mark.parametrize("tensors", [LORA, {"something": (2, 2)}])
def test_what_nobody_knows_has_no_base(file, tensors):
    """The same line comes where only the base is asked for."""
    with pytest.raises(ValueError, match=r"is a LoRA|is no checkpoint that we know"):
        default_base(file(tensors))


def test_a_network_in_diffusers_names_is_known_by_its_base(file):
    """Nothing in such a file says whose it is."""
    path = file({"transformer_blocks.0.attn.to_q.weight": (8, 8)})
    assert family_of_file(path, "flux") == "flux"
    with pytest.raises(ValueError, match="name its pipeline in base"):
        family_of_file(path)


@pytest.mark.parametrize(
    ("tensors", "family", "bases"),
    [
        (
            {"layers.0.adaLN_modulation.0.weight": (15360, 256)},
            "zimage",
            "Tongyi-MAI/Z-Image, Tongyi-MAI/Z-Image-Turbo",
        ),
        (
            {"layers.0.mlp.linear_fc2.weight": (3072, 8192)},
            "ernie_image",
            "baidu/ERNIE-Image, baidu/ERNIE-Image-Turbo",
        ),
        (
            {"double_stream_blocks.0.block.adaLN_modulation.1.bias": (30720,)},
            "hidream",
            "HiDream-ai/HiDream-I1-Full, HiDream-ai/HiDream-I1-Dev",
        ),
        (
            {"txt_in.text_norm.weight": (4096,)},
            "qwen_image_21",
            "Qwen/Qwen-Image-2.1, Qwen/Qwen-Image-2.1-Turbo",
        ),
        (
            {"single_stream_modulation.lin.weight": (9216, 3072)},
            "flux2_klein",
            "black-forest-labs/FLUX.2-klein-base-4B",
        ),
    ],
)
def test_originals_that_a_file_does_not_tell_apart_are_asked_for(file, tensors, family, bases):
    """Z-Image's base would get Turbo's shift, and klein's network dev's text encoder."""
    path = file(tensors)
    assert family_of_file(path) == family
    with pytest.raises(
        ValueError, match=rf"^base: nothing in the file .* says which original .* one of these: {bases}"
    ):
        default_base(path)


def test_flux2_dev_is_known_by_what_it_is_told(file):
    """Only its network has layers for guidance, so that its file needs no base."""
    path = file({"single_stream_modulation.lin.weight": (9216, 3072), "guidance_in.in_layer.weight": (3072, 256)})
    assert family_of_file(path) == "flux2_dev"
    assert default_base(path) == "black-forest-labs/FLUX.2-dev"


def test_parts_of_a_file(file):
    """Which components come along with the network; a file of the network alone holds none."""
    assert parts_in(file(SDXL)) == {"vae", "text_encoder", "text_encoder_2"}
    assert parts_in(file(SDXL_NETWORK)) == set()
    assert parts_in(file(FLUX | {"text_encoders.t5xxl.transformer.shared.weight": (8, 8)})) == {
        "text_encoder_2",
        "text_encoder_3",
    }


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=r"the weights file .*model.safetensors is damaged or cut short"):
        family_of_file(str(path))
