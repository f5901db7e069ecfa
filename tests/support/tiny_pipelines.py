"""Pipelines of every family with random weights and a few thousand parameters, saved as a real user would have them."""

import json
from functools import wraps
from inspect import signature
from pathlib import Path

import old_tokenizers
import pytest
import torch
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.families.qwen_image_21 import Silent

SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
LETTERS = [chr(code) for code in range(33, 127)]


def clip_tokenizer(folder: Path):
    """A CLIP tokenizer that knows letters only, made on the spot."""
    from transformers import CLIPTokenizer

    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *SPECIAL]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def of_transformers_5():
    """Whether tokenizers are made from vocabularies."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def t5_tokenizer():
    """A T5 tokenizer that knows letters only."""
    from transformers import T5TokenizerFast

    tokens = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    told = {"vocab": tokens} if of_transformers_5() else {"tokenizer_object": old_tokenizers.t5(tokens)}
    return T5TokenizerFast(**told, extra_ids=0, model_max_length=512)


def gemma_tokenizer():
    """A Gemma tokenizer that knows letters only."""
    from transformers import GemmaTokenizerFast

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    if not of_transformers_5():
        return GemmaTokenizerFast(tokenizer_object=old_tokenizers.gemma(tokens), add_bos_token=False)
    return GemmaTokenizerFast(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


def clip_text_encoder(tokenizer, width=16, projected=False, length=16, **options):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **options,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_text_encoder(tokenizer, width=32):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2, use_cache=False,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def gemma_text_encoder(tokenizer, width=16):
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=16, use_cache=False,
    )  # fmt: skip
    return Gemma2Model(config).eval()


def vae(channels=4, **options):
    """An AutoencoderKL that makes latents an eighth as high and wide."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=channels,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **options,
    ).eval()


def flow_vae(scaling_factor, shift_factor, channels=8):
    """As SD3, FLUX and Lumina have it: more channels, shifted latents, no convolution around them."""
    return vae(
        channels,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def unet(text_width=16, **options):
    from diffusers import UNet2DConditionModel

    settings = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": text_width,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(settings | options)).eval()


def ddpm_scheduler(**options):
    from diffusers import DDIMScheduler

    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**(settings | options), clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def flow_scheduler(**options):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def dynamic_shift(shift):
    """The scheduler of FLUX.1 dev and of Lumina 2: its shift grows with the image, and ``shift`` is not used."""
    return flow_scheduler(shift=shift, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)


def sd(folder: Path, *, unet_options=None, **options):
    """Stable Diffusion 1.x; ``prediction_type="v_prediction"`` for 2.x."""
    from diffusers import StableDiffusionPipeline

    tokenizer = clip_tokenizer(folder / "made")
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet(**(unet_options or {})),
        scheduler=ddpm_scheduler(**options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(folder: Path, **options):
    """Stable Diffusion XL base: two encoders, and a U-Net that is told sizes."""
    from diffusers import StableDiffusionXLPipeline

    tokenizer = clip_tokenizer(folder / "made")
    told = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "transformer_layers_per_block": (1, 1)}
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip_text_encoder(tokenizer, hidden_act="quick_gelu"),
        text_encoder_2=clip_text_encoder(tokenizer, projected=True, hidden_act="gelu"),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(folder / "made"),
        unet=unet(text_width=32, projection_class_embeddings_input_dim=6 * 8 + 16, **told),
        scheduler=ddpm_scheduler(**options),
        add_watermarker=False,
    )


def sd3_network(**options):
    from diffusers import SD3Transformer2DModel

    settings = {
        "sample_size": 8,
        "in_channels": 8,
        "out_channels": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "caption_projection_dim": 16,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "pos_embed_max_size": 16,
    }
    return SD3Transformer2DModel(**(settings | options)).eval()


def sd3(folder: Path, *, t5=True, **network):
    """Stable Diffusion 3; ``t5=False`` without its third encoder; 3.5 by options of the network."""
    from diffusers import StableDiffusion3Pipeline

    tokenizer = clip_tokenizer(folder / "made")
    return StableDiffusion3Pipeline(
        vae=flow_vae(1.5305, 0.0609),
        text_encoder=clip_text_encoder(tokenizer, projected=True),
        text_encoder_2=clip_text_encoder(tokenizer, projected=True, hidden_act="gelu"),
        text_encoder_3=t5_text_encoder(t5_tokenizer()) if t5 else None,
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(folder / "made"),
        tokenizer_3=t5_tokenizer() if t5 else None,
        transformer=sd3_network(**network),
        scheduler=flow_scheduler(shift=3.0),
    )


def flux_network(**options):
    from diffusers import FluxTransformer2DModel

    settings = {
        "patch_size": 1,
        "in_channels": 4 * 8,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 16,
        "guidance_embeds": True,
        "axes_dims_rope": (2, 2, 4),
    }
    return FluxTransformer2DModel(**(settings | options)).eval()


def flux_kontext(folder: Path):
    """FLUX.1 Kontext."""
    from diffusers import FluxKontextPipeline

    return flux(folder, kind=FluxKontextPipeline)


def flux(folder: Path, *, guidance=True, kind=None):
    """FLUX.1 dev; ``guidance=False`` for schnell."""
    from diffusers import FluxPipeline

    tokenizer = clip_tokenizer(folder / "made")
    return (kind or FluxPipeline)(
        vae=flow_vae(0.3611, 0.1159),
        text_encoder=clip_text_encoder(tokenizer),
        text_encoder_2=t5_text_encoder(t5_tokenizer()),
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),
        transformer=flux_network(guidance_embeds=guidance),
        scheduler=dynamic_shift(3.0) if guidance else flow_scheduler(shift=1.0),
    )


def dit(folder: Path, *, learned_sigma=True, **options):
    """DiT on ImageNet's classes; it puts out its learned variance too. ``folder`` is not used."""
    from diffusers import DiTPipeline, DiTTransformer2DModel

    names = {0: "cat, tabby", 1: "dog"}
    pipeline = DiTPipeline(
        transformer=DiTTransformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=8 if learned_sigma else 4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            num_embeds_ada_norm=1000,  # the pipeline takes class 1000 for none
        ).eval(),
        vae=vae(),
        scheduler=ddpm_scheduler(**({"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"} | options)),
        id2label=names,
    )
    pipeline.register_to_config(id2label=names)  # the hub's has the names in its model_index.json; diffusers forgets
    return pipeline


def lumina2(folder: Path):
    """Lumina Image 2.0. ``folder`` is not used."""
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    tokenizer = gemma_tokenizer()
    return Lumina2Pipeline(
        vae=flow_vae(0.3611, 0.1159),
        text_encoder=gemma_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=Lumina2Transformer2DModel(
            sample_size=8,
            in_channels=8,
            hidden_size=16,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(300, 64, 64),
            cap_feat_dim=16,
        ).eval(),
        scheduler=dynamic_shift(6.0),
    )


CHAT = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}<|im_start|>"
"""A template as Qwen's tokenizers have one, for letters."""


def qwen_tokenizer():
    """A Qwen2 tokenizer that knows single bytes only."""
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*bytes_to_unicode().values(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if of_transformers_5():
        tokenizer = Qwen2TokenizerFast(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
    else:
        tokenizer = Qwen2TokenizerFast(tokenizer_object=old_tokenizers.qwen(tokens, tokens[-3:]))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(kind, tokenizer, width=8, layers=2):
    """Qwen3 as Z-Image and FLUX.2 klein read it."""
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, head_dim=8,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=1024, use_cache=False,
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


def zimage(folder: Path, *, shift=6.0):
    """Z-Image; Turbo by its shift. ``folder`` is not used."""
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    tokenizer = qwen_tokenizer()
    network = ZImageTransformer2DModel(
        in_channels=8, dim=16, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=8,
        axes_dims=[4, 2, 2], axes_lens=[1024, 64, 64],
    ).eval()  # fmt: skip
    for token in (network.x_pad_token, network.cap_pad_token):
        torch.nn.init.zeros_(token)  # before diffusers 0.39 they are whatever the memory held
    return ZImagePipeline(
        vae=flow_vae(0.3611, 0.1159),
        text_encoder=qwen3("Qwen3Model", tokenizer),
        tokenizer=tokenizer,
        transformer=network,
        scheduler=flow_scheduler(shift=shift),
    )


def flux2_network(**options):
    from diffusers import Flux2Transformer2DModel

    settings = {
        "in_channels": 4 * 8, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 24, "timestep_guidance_channels": 16,
        "axes_dims_rope": (2, 2, 2, 2), "guidance_embeds": False,
    }  # fmt: skip
    return Flux2Transformer2DModel(**(settings | options)).eval()


def flux2_vae():
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, sample_size=64
    ).eval()
    vae.bn.running_mean.normal_(std=0.1)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


PARTS_CHAT = """{% for message in messages %}<|im_start|>{% for part in message.content %}{{ part.text }}{% endfor %}\
<|im_end|>{% endfor %}"""
"""A template for messages in parts, as Mistral's has one."""


def mistral3(kind, tokenizer, layers):
    """Mistral with eyes, as FLUX.2 dev and ERNIE-Image read it."""
    import transformers

    reader = {
        "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": layers, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
        "use_cache": False,
    }  # fmt: skip
    sight = {
        "model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "image_size": 28, "patch_size": 14, "head_dim": 8,
    }  # fmt: skip
    config = transformers.Mistral3Config(text_config=reader, vision_config=sight)
    return getattr(transformers, kind)(config).eval()


def flux2_dev(folder: Path):
    """FLUX.2 dev. It reads three of Mistral's layers, the last of which is the 30th. ``folder`` is not used."""
    from diffusers import Flux2Pipeline

    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = PARTS_CHAT
    return Flux2Pipeline(
        vae=flux2_vae(),
        text_encoder=mistral3("Mistral3ForConditionalGeneration", tokenizer, layers=31),
        tokenizer=tokenizer,
        transformer=flux2_network(guidance_embeds=True),
        scheduler=dynamic_shift(3.0),
    )


def flux2_klein(folder: Path):
    """FLUX.2 klein, base. It reads three of Qwen3's layers, the last of which is the 27th. ``folder`` is not used."""
    from diffusers import Flux2KleinPipeline

    tokenizer = qwen_tokenizer()
    return Flux2KleinPipeline(
        vae=flux2_vae(),
        text_encoder=qwen3("Qwen3ForCausalLM", tokenizer, layers=28),
        tokenizer=tokenizer,
        transformer=flux2_network(),
        scheduler=dynamic_shift(3.0),
    )


def flux3_network(**options):
    from diffusers import Flux3Transformer2DModel

    settings = {
        "in_channels": 4 * 8, "cond_in_channels": 4 * 8, "num_layers": 1, "num_single_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 8 * 16, "timestep_channels": 16,
        "axes_dims_rope": (2, 2, 2, 2),
    }  # fmt: skip
    return Flux3Transformer2DModel(**(settings | options)).eval()


def flux3(folder: Path, *, distilled=False, **network):
    """FLUX.3, whose pipeline is a modular one, without what writes prompts anew. It reads eight of Qwen3-VL's layers,
    the last of which is the 32nd. ``folder`` is not used."""
    from diffusers import Flux3DistilledModularPipeline, Flux3ModularPipeline

    tokenizer = qwen_tokenizer()
    pipeline = (Flux3DistilledModularPipeline if distilled else Flux3ModularPipeline)()
    pipeline.update_components(
        text_encoder=qwen3_vl(tokenizer, layers=34, kind="Qwen3VLForConditionalGeneration"),
        tokenizer=tokenizer,
        transformer=flux3_network(**network),
        vae=flux2_vae(),
    )
    return pipeline


def qwen_image_network(**options):
    from diffusers import QwenImageTransformer2DModel

    settings = {
        "in_channels": 4 * 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": 16, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    return QwenImageTransformer2DModel(**(settings | options)).eval()


def qwen_vae():
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 1.0, 2.0],
    ).eval()  # fmt: skip


def krea2_network(**options):
    from diffusers import Krea2Transformer2DModel

    settings = {
        "in_channels": 4 * 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 32, "timestep_embed_dim": 16, "text_hidden_dim": 16,
        "num_text_layers": 2, "text_num_attention_heads": 2, "text_num_key_value_heads": 2,
        "text_intermediate_size": 32, "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1,
        "axes_dims_rope": (4, 2, 2),
    }  # fmt: skip
    return Krea2Transformer2DModel(**(settings | options)).eval()


def qwen3_vl(tokenizer, layers=2, kind="Qwen3VLModel"):
    """Qwen3-VL without what speaks, as Krea 2 and Ideogram 4 read it; FLUX.3 and Qwen-Image 2.1 have all of it."""
    import transformers

    reader = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "use_cache": False,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
    }  # fmt: skip
    sight = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
    }  # fmt: skip
    config = transformers.Qwen3VLConfig(text_config=reader, vision_config=sight)
    return getattr(transformers, kind)(config).eval()


def krea2(folder: Path, *, turbo=False):
    """Krea 2, or its Turbo. ``folder`` is not used."""
    from diffusers import Krea2Pipeline

    tokenizer = qwen_tokenizer()
    return Krea2Pipeline(
        scheduler=flow_scheduler(
            shift=1.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=6400
        ),
        vae=qwen_vae(),
        text_encoder=qwen3_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=krea2_network(),
        text_encoder_select_layers=(1, 2),
        is_distilled=turbo,
    )


def ideogram4_network(**options):
    from diffusers import Ideogram4Transformer2DModel

    settings = {
        "in_channels": 4 * 8, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 1,
        "intermediate_size": 32, "adaln_dim": 8, "llm_features_dim": 13 * 16, "mrope_section": (4, 2, 2),
    }  # fmt: skip
    return Ideogram4Transformer2DModel(**(settings | options)).eval()


def ideogram4(folder: Path):
    """Ideogram 4. It reads thirteen of Qwen3-VL's layers, the last of which is the 36th. ``folder`` is not used."""
    from diffusers import Ideogram4Pipeline

    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = PARTS_CHAT
    return Ideogram4Pipeline(
        scheduler=flow_scheduler(shift=1.0),
        vae=flux2_vae(),
        text_encoder=qwen3_vl(tokenizer, layers=36),
        tokenizer=tokenizer,
        transformer=ideogram4_network(),
        unconditional_transformer=ideogram4_network(),
    )


def anima_network(**options):
    from diffusers import CosmosTransformer3DModel

    settings = {
        "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12,
        "text_embed_dim": 16, "adaln_lora_dim": 4, "rope_scale": (1.0, 4.0, 4.0), "extra_pos_embed_type": None,
    }  # fmt: skip
    return CosmosTransformer3DModel(**(settings | options)).eval()


def anima(folder: Path):
    """Anima, whose pipeline is a modular one. ``folder`` is not used."""
    from diffusers import AnimaModularPipeline, AnimaTextConditioner

    tokenizer, t5 = qwen_tokenizer(), t5_tokenizer()
    pipeline = AnimaModularPipeline()
    pipeline.update_components(
        text_encoder=qwen3("Qwen3Model", tokenizer),
        tokenizer=tokenizer,
        t5_tokenizer=t5,
        text_conditioner=AnimaTextConditioner(
            source_dim=8, target_dim=16, model_dim=16, num_layers=1, num_attention_heads=2, target_vocab_size=len(t5)
        ).eval(),
        transformer=anima_network(),
        vae=qwen_vae(),
        scheduler=flow_scheduler(shift=3.0),
    )
    return pipeline


def ernie_image_network(**options):
    from diffusers import ErnieImageTransformer2DModel

    settings = {
        "hidden_size": 16, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 32, "in_channels": 4 * 8,
        "out_channels": 4 * 8, "text_in_dim": 8, "rope_axes_dim": (4, 2, 2),
    }  # fmt: skip
    return ErnieImageTransformer2DModel(**(settings | options)).eval()


def ernie_image(folder: Path):
    """ERNIE-Image, without what rewrites prompts. ``folder`` is not used."""
    from diffusers import ErnieImagePipeline

    tokenizer = qwen_tokenizer()
    return ErnieImagePipeline(
        transformer=ernie_image_network(),
        vae=flux2_vae(),
        text_encoder=mistral3("Mistral3Model", tokenizer, layers=2),
        tokenizer=tokenizer,
        scheduler=flow_scheduler(shift=4.0),
    )


def hidream_network(**options):
    from diffusers import HiDreamImageTransformer2DModel

    settings = {
        "patch_size": 2, "in_channels": 8, "out_channels": 8, "num_layers": 1, "num_single_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 2, "caption_channels": [16, 16], "text_emb_dim": 32,
        "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": (4, 2, 2), "max_resolution": (16, 16),
        "llama_layers": [0, 1, 1],
    }  # fmt: skip
    return HiDreamImageTransformer2DModel(**(settings | options)).eval()


def hidream(folder: Path, *, dev=False):
    """HiDream-I1, with Llama in its folder."""
    from diffusers import FlowMatchLCMScheduler, HiDreamImagePipeline
    from transformers import LlamaConfig, LlamaForCausalLM

    clip, llama = clip_tokenizer(folder / "made"), qwen_tokenizer()
    llama.pad_token = llama.eos_token = "<|endoftext|>"
    config = LlamaConfig(
        vocab_size=len(llama), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    return HiDreamImagePipeline(
        scheduler=FlowMatchLCMScheduler(shift=6.0) if dev else flow_scheduler(shift=3.0),
        vae=flow_vae(0.3611, 0.1159),
        text_encoder=clip_text_encoder(clip, projected=True, length=128),
        tokenizer=clip,
        text_encoder_2=clip_text_encoder(clip, projected=True, length=128, hidden_act="gelu"),
        tokenizer_2=clip_tokenizer(folder / "made"),
        text_encoder_3=t5_text_encoder(t5_tokenizer(), width=16),
        tokenizer_3=t5_tokenizer(),
        text_encoder_4=LlamaForCausalLM(config).eval(),
        tokenizer_4=llama,
        transformer=hidream_network(),
    )


SIGHT = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen_image_edit(folder: Path, *, plus=False):
    """Qwen-Image-Edit; ``plus`` as of September 2025. Its processor is written by :func:`save`."""
    from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline

    return qwen_image(folder, kind=QwenImageEditPlusPipeline if plus else QwenImageEditPipeline, processor=None)


def qwen_image_edit_plus(folder: Path):
    return qwen_image_edit(folder, plus=True)


def write_processor(folder: Path):
    """What the processor of Qwen-Image-Edit leaves in a pipeline's folder, of which transformers makes all of it with
    torchvision only."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "processor")
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "min_pixels": 784,
        "max_pixels": 12845056, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25],
    }  # fmt: skip
    (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(settings))
    write_in_index(folder, "processor", "Qwen2_5_VLProcessor")


ROLES_CHAT = """{% for message in messages %}<|im_start|>{{ message.role }}
{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>
{% endfor %}"""
"""A template for messages in parts, as Qwen3-VL has one."""


def write_reader(folder: Path):
    """What the processor of Qwen-Image 2.1 leaves in a pipeline's folder, less what is for pictures."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = ROLES_CHAT
    tokenizer.save_pretrained(folder / "processor")
    write_in_index(folder, "processor", "Qwen3VLProcessor")


def write_in_index(folder: Path, part, kind):
    """A part of the hub's pipeline that needs torchvision, which is not asked for here."""
    index = json.loads((folder / "model_index.json").read_text())
    index[part] = ["transformers", kind]
    (folder / "model_index.json").write_text(json.dumps(index))


def small_pictures(monkeypatch):
    """Pipelines that edit make the picture that they are shown as large as a megapixel; not so in tests."""
    from diffusers.pipelines.flux import pipeline_flux_kontext
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    def size_of(area, ratio):
        return (64, 32) if area < 1e6 else (64, 64)

    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda *asked: (*size_of(*asked), None))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "calculate_dimensions", size_of)
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 48)])


def qwen25_vl(tokenizer, **places):
    """Qwen2.5-VL as Qwen-Image and LongCat-Image read it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    sight = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    reader = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "use_cache": False,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=reader, vision_config=sight, tie_word_embeddings=False, **places)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen_image(folder: Path, *, kind=None, **parts):
    """Qwen-Image. ``folder`` is not used."""
    from diffusers import QwenImagePipeline

    tokenizer, places = qwen_tokenizer(), {}
    if kind:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *SIGHT]})
        names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        places = dict(zip(names, tokenizer.convert_tokens_to_ids(SIGHT), strict=True))
    return (kind or QwenImagePipeline)(
        **parts,
        vae=qwen_vae(),
        text_encoder=qwen25_vl(tokenizer, **places),
        tokenizer=tokenizer,
        transformer=qwen_image_network(),
        scheduler=flow_scheduler(
            shift=1.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
    )  # fmt: skip


def qwen_image_21_network(**options):
    from diffusers import QwenImage21Transformer2DModel

    settings = {
        "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
        "context_in_dim": 16, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    return QwenImage21Transformer2DModel(**(settings | options)).eval()


TURBO_SIGMAS = [1.0, 0.95, 0.85, 0.4]


def qwen_image_21(folder: Path, *, turbo=False, **scheduler):
    """Qwen-Image 2.1, or its Turbo. Its processor is written by :func:`save`. ``folder`` is not used."""
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline

    settings = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192}
    vae = AutoencoderKLQwenImage21(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 1.0, 2.0],
    ).eval()  # fmt: skip
    return QwenImage21Pipeline(
        scheduler=flow_scheduler(**(settings | scheduler)),
        vae=vae,
        text_encoder=qwen3_vl(qwen_tokenizer(), kind="Qwen3VLForConditionalGeneration"),
        processor=Silent(),
        transformer=qwen_image_21_network(),
        sample_sigmas=TURBO_SIGMAS if turbo else None,
    )


def chroma_network(**options):
    from diffusers import ChromaTransformer2DModel

    settings = {
        "in_channels": 4 * 8, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": (2, 2, 4),
        "approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 2,
    }  # fmt: skip
    return ChromaTransformer2DModel(**(settings | options)).eval()


def chroma(folder: Path):
    """Chroma. ``folder`` is not used."""
    from diffusers import ChromaPipeline

    tokenizer = t5_tokenizer()
    return ChromaPipeline(
        vae=flow_vae(0.3611, 0.1159),
        text_encoder=t5_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=chroma_network(),
        scheduler=flow_scheduler(shift=3.0),
    )


def longcat_network(**options):
    from diffusers import LongCatImageTransformer2DModel

    settings = {
        "in_channels": 4 * 16, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 16, "pooled_projection_dim": 16, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    return LongCatImageTransformer2DModel(**(settings | options)).eval()


def longcat_image(folder: Path):
    """LongCat-Image, without what only writes captions anew; its pipeline knows 16 channels. ``folder`` is not used."""
    from diffusers import LongCatImagePipeline

    tokenizer = qwen_tokenizer()
    return LongCatImagePipeline(
        vae=flow_vae(0.3611, 0.1159, channels=16),
        text_encoder=qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        text_processor=None,
        transformer=longcat_network(),
        scheduler=dynamic_shift(3.0),
    )


def wan_network(**options):
    from diffusers import WanTransformer3DModel

    settings = {
        "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 12, "num_attention_heads": 2,
        "text_dim": 16, "freq_dim": 8, "ffn_dim": 32,
    }  # fmt: skip
    return WanTransformer3DModel(**(settings | options)).eval()


def wan(folder: Path, *, two=False):
    """Wan 2.1; ``two`` networks as in Wan 2.2 of 14 B. ``folder`` is not used."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = t5_tokenizer()
    config = UMT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, use_cache=False,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(config).eval(),
        vae=AutoencoderKLWan(
            base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 1.0, 2.0],
        ).eval(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        transformer=wan_network(),
        transformer_2=wan_network() if two else None,
    )  # fmt: skip


def unread(kind):
    """What a family's pipeline has for pictures in its text: it needs torchvision, and is left out."""
    import diffusers

    takes = signature(getattr(diffusers, kind.pipeline_class).__init__).parameters
    return dict.fromkeys({"processor", "text_processor"} & {*takes})


def where_it_is_there(family, maker):
    """That maker; a test that asks it for a family of a newer diffusers than is installed is skipped."""

    @wraps(maker)
    def make(*arguments, **options):
        if reason := PRETRAINED[family].too_new():
            pytest.skip(reason)
        return maker(*arguments, **options)

    return make


MAKERS = {family: where_it_is_there(family, globals()[family]) for family in PRETRAINED}
"""Each family's pipeline is made by the function of its name; a new family has one, or nothing here is imported."""


def save(family: str, folder: Path, *, variant: str | None = None, **options) -> Path:
    """The tiny pipeline of that family as a folder, always with the same weights; returns the folder.

    ``variant="fp16"`` writes half-precision files named ``*.fp16.safetensors``, as many people keep them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = MAKERS[family](folder.parent / f"{folder.name}_made", **options)
        wake_up(pipeline)
    if variant == "fp16":
        pipeline.to(torch.float16)
    modular = {"overwrite_modular_index": True} if family in ("anima", "flux3") else {}
    pipeline.save_pretrained(str(folder), variant=variant, **modular)
    if "edit" in family:
        write_processor(folder)
    if family == "qwen_image_21":
        write_reader(folder)
    if family == "longcat_image":
        write_in_index(folder, "text_processor", "Qwen2VLProcessor")
    return folder


def wake_up(pipeline):
    """Layers that start at zero, and would hide what is before them, get small random weights."""
    for part in pipeline.components.values():
        for weight in part.parameters() if isinstance(part, torch.nn.Module) else ():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
