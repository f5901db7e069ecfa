"""The original names of layers, against diffusers' own converters from the original checkpoints."""

import pytest
import torch
from comfyui_rollout.models.adapters.formats import ONE_NAME
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.adapters.original import ORIGINAL
from comfyui_rollout.models.families import PRETRAINED
from own_networks import READERS

OWN_NAMES = [family for family in READERS if PRETRAINED[family].network_class in (*ORIGINAL, "UNet2DConditionModel")]


def test_every_family_has_its_original_names_or_none_but_diffusers():
    """A family in no table would be saved under names that nobody else reads."""
    assert {family for family in READERS if PRETRAINED[family].network_class in ONE_NAME} == {*READERS} - {*OWN_NAMES}


@pytest.fixture
def network(tiny_pipelines, tmp_path):
    """``network(family)``: a tiny network of that family."""

    def make(family):
        torch.manual_seed(0)
        return getattr(tiny_pipelines.MAKERS[family](tmp_path / family), PRETRAINED[family].network_part)

    return make


def original_weights(network, names):
    """Weights of all layers by their original names, as a checkpoint of the original code has them."""
    found = {}
    for original, layers in names.groups.items():
        for kind in ("weight", "bias"):
            parts = [network.get_submodule(layer).state_dict().get(kind) for layer in layers]
            if all(part is not None for part in parts):
                joined = torch.cat(parts)
                if names.turned(layers[0]):
                    joined = torch.cat(joined.chunk(2)[::-1])
                found[f"{original}.{kind}"] = joined
    return found


@pytest.mark.parametrize("family", OWN_NAMES)
def test_every_layer_has_one_original_name(network, family):
    """Whatever layer a pattern names, it can be written; and no two names can be taken for each other."""
    live = network(family)
    names = names_of(type(live).__name__, live.config)
    members = [layer for layers in names.groups.values() for layer in layers]
    assert sorted(members) == sorted(names.layers)
    flat = [name.replace(".", "_") for name in [*names.layers, *(names.groups.keys() - names.layers.keys())]]
    assert len(set(flat)) == len(flat)
    for layer, shape in names.layers.items():
        assert tuple(live.get_submodule(layer).weight.shape) == shape


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_names_of_a_unet_are_those_that_diffusers_converts_from(network, family):
    """A checkpoint with our names becomes the network's own weights again."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    live = network(family)
    names = names_of("UNet2DConditionModel", live.config)
    checkpoint = {f"model.diffusion_model.{name}": value for name, value in original_weights(live, names).items()}
    state, wanted = convert_ldm_unet_checkpoint(with_norms(checkpoint, live), dict(live.config)), live.state_dict()
    for layer in names.layers:
        assert torch.equal(state[f"{layer}.weight"], wanted[f"{layer}.weight"]), layer


def with_norms(checkpoint, network):
    """The converter looks for the output's normalisation, which has no adapter."""
    prefix, norm = "model.diffusion_model.out.0", network.conv_norm_out
    return checkpoint | {f"{prefix}.weight": norm.weight.data, f"{prefix}.bias": norm.bias.data}


def test_names_of_sd3_are_those_that_diffusers_converts_from(tiny_pipelines, tmp_path):
    """Also with the second attention of 3.5 medium, and the halves that diffusers turns round."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    pipeline = tiny_pipelines.sd3(tmp_path, dual_attention_layers=(0,))
    live = pipeline.transformer
    names = names_of("SD3Transformer2DModel", live.config)
    checkpoint = original_weights(live, names) | {"pos_embed": live.pos_embed.pos_embed}
    state, wanted = convert_sd3_transformer_checkpoint_to_diffusers(checkpoint), live.state_dict()
    for layer in names.layers:
        assert torch.equal(state[f"{layer}.weight"], wanted[f"{layer}.weight"]), layer


@pytest.mark.parametrize(
    ("family", "converter"),
    [
        ("zimage", "convert_z_image_transformer_checkpoint_to_diffusers"),
        ("flux2_klein", "convert_flux2_transformer_checkpoint_to_diffusers"),
        ("flux3", "convert_flux3_transformer_checkpoint_to_diffusers"),
        ("qwen_image_21", "convert_qwen_image21_transformer_checkpoint_to_diffusers"),
        ("wan", "convert_wan_transformer_to_diffusers"),
        ("anima", "convert_cosmos_transformer_checkpoint_to_diffusers"),
    ],
)
def test_names_of_newer_families_are_those_that_diffusers_converts_from(network, family, converter):
    """q, k and v in one, and the halves that diffusers turns round."""
    from diffusers.loaders import single_file_utils

    live = network(family)
    names = names_of(type(live).__name__, live.config)
    state, wanted = getattr(single_file_utils, converter)(original_weights(live, names)), live.state_dict()
    for layer in names.layers:
        assert torch.equal(state[f"{layer}.weight"], wanted[f"{layer}.weight"]), layer
