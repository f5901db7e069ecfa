"""The names of one network's layers, from its settings alone."""

from comfyui_rollout.models.adapters.names import names_of


def test_layers_of_an_unknown_network_have_diffusers_names_only():
    """The next family can be saved in diffusers' format before anybody adds a table; others are refused."""
    config = {"sample_size": 4, "num_layers": 1, "num_attention_heads": 1, "attention_head_dim": 8, "in_channels": 4}
    names = names_of("DiTTransformer2DModel", config)
    assert names.groups == {}
    assert names.layers["transformer_blocks.0.attn1.to_q"] == (8, 8)
