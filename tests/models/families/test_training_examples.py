"""Our training step is that of diffusers' training example of each family: what goes into the network, and the loss.

Each ``example_*`` below is the heart of a file in diffusers' examples/, with the same objects of diffusers: it is given
latents, noise and u (which noise levels are drawn), and calls the bare network.
"""

import inspect
from dataclasses import dataclass

import diffusers
import pytest
import torch
from comfyui_rollout.diffusion.losses import per_item, target
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models.families.anima_pipeline import resizing
from diffusers import (
    ChromaPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    FluxPipeline,
    QwenImagePipeline,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch.nn import functional as F

U = torch.tensor([0.13, 0.5, 0.871])
"""Where in the table of noise levels each item is; the examples draw it."""
GUIDANCE = 2.5


@dataclass
class Example:
    """What a training example computed: the loss of each item, and at which timestep of ours that is."""

    losses: torch.Tensor
    timestep: torch.Tensor


def mean_square(prediction, wanted):
    return F.mse_loss(prediction.float(), wanted.float(), reduction="none").flatten(1).mean(1)


def flow_levels(folder, scheduler=None):
    """The examples' get_sigmas: timesteps (B,) and sigmas (B, 1, 1, 1) of the family's scheduler at ``U``."""
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    indices = (U * scheduler.config.num_train_timesteps).long()
    return scheduler.timesteps[indices], scheduler.sigmas[indices].reshape(-1, 1, 1, 1)


def example_ddpm(folder, network, latents, noise, **told):
    """examples/text_to_image/train_text_to_image.py and train_text_to_image_sdxl.py."""
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    timesteps = (U * scheduler.config.num_train_timesteps).long()
    noisy = scheduler.add_noise(latents, noise, timesteps)
    v_prediction = scheduler.config.prediction_type == "v_prediction"
    wanted = scheduler.get_velocity(latents, noise, timesteps) if v_prediction else noise
    prediction = network(noisy, timesteps, **told, return_dict=False)[0]
    return Example(mean_square(prediction, wanted), timesteps)


def example_sd(folder, network, latents, noise, told):
    return example_ddpm(folder, network, latents, noise, encoder_hidden_states=told["text"])


def example_sdxl(folder, network, latents, noise, told):
    added = {"time_ids": told["time_ids"].float(), "text_embeds": told["pooled"]}
    return example_ddpm(folder, network, latents, noise, encoder_hidden_states=told["text"], added_cond_kwargs=added)


def example_dit(folder, network, latents, noise, told):
    """DiT's own train.py (facebookresearch/DiT): epsilon is the first half of the output."""
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    timesteps = (U * scheduler.config.num_train_timesteps).long()
    noisy = scheduler.add_noise(latents, noise, timesteps)
    output = network(noisy, timestep=timesteps, class_labels=told["label"], return_dict=False)[0]
    epsilon, _ = output.split(latents.shape[1], dim=1)
    return Example(mean_square(epsilon, noise), timesteps)


def example_sd3(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_sd3.py, without its preconditioning, weighting 1."""
    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    prediction = network(
        hidden_states=noisy,
        timestep=timesteps,
        encoder_hidden_states=told["text"],
        pooled_projections=told["pooled"],
        return_dict=False,
    )[0]
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_flux(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_flux.py."""
    timesteps, sigmas = flow_levels(folder)
    batch, channels, height, width = latents.shape
    ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    packed = FluxPipeline._pack_latents(
        noisy, batch_size=batch, num_channels_latents=channels, height=height, width=width
    )
    seen = packed.shape[1]
    if "control" in told:  # examples/dreambooth/train_dreambooth_lora_flux_kontext.py
        shown = FluxPipeline._pack_latents(told["control"], batch, channels, height, width)
        shown_ids = ids.clone()
        shown_ids[..., 0] = 1
        packed, ids = torch.cat([packed, shown], dim=1), torch.cat([ids, shown_ids], dim=0)
    guidance = torch.tensor([GUIDANCE]).expand(batch) if network.config.guidance_embeds else None
    prediction = network(
        hidden_states=packed,
        timestep=timesteps / 1000,
        guidance=guidance,
        pooled_projections=told["pooled"],
        encoder_hidden_states=told["text"],
        txt_ids=torch.zeros(told["text"].shape[1], 3),
        img_ids=ids,
        return_dict=False,
    )[0][:, :seen]
    prediction = FluxPipeline._unpack_latents(prediction, height=height * 8, width=width * 8, vae_scale_factor=8)
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_lumina2(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_lumina2.py: sigma 1 is the image there."""
    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * noise + sigmas * latents
    prediction = network(
        hidden_states=noisy,
        encoder_hidden_states=told["text"],
        encoder_attention_mask=told["mask"],
        timestep=timesteps / 1000,
        return_dict=False,
    )[0]
    return Example(mean_square(prediction, latents - noise), 1000 - timesteps)


def example_zimage(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_z_image.py: lists go in and out, and the sign is turned."""
    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    texts = [text[mask] for text, mask in zip(told["text"], told["mask"], strict=True)]
    prediction = network(list(noisy.unsqueeze(2).unbind(0)), (1000 - timesteps) / 1000, texts, return_dict=False)[0]
    return Example(mean_square(-torch.stack(prediction).squeeze(2), noise - latents), timesteps)


def example_flux2(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_flux2.py and .._flux2_klein.py: in patches, each with its place."""
    timesteps, sigmas = flow_levels(folder)
    patches, noise = (Flux2Pipeline._patchify_latents(value) for value in (latents, noise))
    noisy = (1.0 - sigmas) * patches + sigmas * noise
    ids = every = Flux2Pipeline._prepare_latent_ids(patches)
    packed = Flux2Pipeline._pack_latents(noisy)
    if "control" in told:  # examples/dreambooth/train_dreambooth_lora_flux2_klein_img2img.py
        shown = Flux2Pipeline._patchify_latents(told["control"])
        shown_ids = Flux2Pipeline._prepare_image_ids([shown[:1]]).expand(len(shown), -1, -1)
        packed = torch.cat([packed, Flux2Pipeline._pack_latents(shown)], dim=1)
        every = torch.cat([ids, shown_ids], dim=1)
    prediction = network(
        hidden_states=packed,
        timestep=timesteps / 1000,
        guidance=torch.tensor([GUIDANCE]).expand(len(latents)) if network.config.guidance_embeds else None,
        encoder_hidden_states=told["text"],
        txt_ids=Flux2Pipeline._prepare_text_ids(told["text"]),
        img_ids=every,
        return_dict=False,
    )[0][:, : ids.shape[1]]
    prediction = Flux2Pipeline._unpack_latents_with_ids(prediction, ids)
    return Example(mean_square(prediction, noise - patches), timesteps)


def example_flux3(folder, network, latents, noise, told):
    """As the denoiser of its modular pipeline calls it, item by item; diffusers has no training example."""
    from diffusers import ClassifierFreeGuidance, Flux3ModularPipeline
    from diffusers.modular_pipelines.flux3.before_denoise import Flux3TextRoPEInputsStep, _prepare_image_ids
    from diffusers.modular_pipelines.flux3.denoise import Flux3LoopDenoiser
    from diffusers.modular_pipelines.flux3.encoders import Flux3VaeEncoderStep
    from diffusers.modular_pipelines.modular_pipeline import BlockState

    pipeline = Flux3ModularPipeline()
    pipeline.update_components(transformer=network, guider=ClassifierFreeGuidance(guidance_scale=1.0))
    timesteps, sigmas = flow_levels(folder, pipeline.scheduler)
    patches = Flux3VaeEncoderStep._patchify_latents((1.0 - sigmas) * latents + sigmas * noise)
    given = {
        "prompt_embeds": told["text"],
        "txt_ids": Flux3TextRoPEInputsStep._prepare_text_ids(told["text"]),
        "img_ids": _prepare_image_ids(*patches.shape[-2:], image_rope_scale=0.5),
    }
    if "control" in told:
        shown = Flux3VaeEncoderStep._patchify_latents(told["control"])
        given["image_cond_hidden_states"] = shown.flatten(2).transpose(1, 2)
        given["image_cond_ids"] = _prepare_image_ids(*shown.shape[-2:], image_rope_scale=0.5, l_coord=-1)
    state = BlockState(latents=patches.flatten(2).transpose(1, 2), denoiser_input_fields=given, num_inference_steps=1)
    _, state = Flux3LoopDenoiser()(pipeline, state, 0, timesteps)
    prediction = state.noise_pred.transpose(1, 2).unflatten(2, patches.shape[-2:])
    return Example(mean_square(unpatchified(prediction), noise - latents), timesteps)


def unpatchified(latents):
    from diffusers.modular_pipelines.flux3.decoders import Flux3DecodeStep

    return Flux3DecodeStep._unpatchify_latents(latents)


def example_qwen_image(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_qwen_image.py."""
    timesteps, sigmas = flow_levels(folder)
    batch, channels, height, width = latents.shape
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    packed, shape = QwenImagePipeline._pack_latents(noisy, batch, channels, height, width), (1, height // 2, width // 2)
    seen, shapes = packed.shape[1], [[shape]] * batch
    if "control" in told:  # as its pipeline does
        shown = QwenImagePipeline._pack_latents(told["control"], batch, channels, height, width)
        packed, shapes = torch.cat([packed, shown], dim=1), [[shape, shape]] * batch
    prediction = network(
        hidden_states=packed,
        encoder_hidden_states=told["text"],
        encoder_hidden_states_mask=told["mask"],
        timestep=timesteps / 1000,
        img_shapes=shapes,
        return_dict=False,
    )[0][:, :seen]
    prediction = QwenImagePipeline._unpack_latents(prediction, height * 8, width * 8, 8).squeeze(2)
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_qwen_image_21(folder, network, latents, noise, told):
    """As its pipeline calls it, of which diffusers has no training example."""
    timesteps, sigmas = flow_levels(folder)
    batch, channels, height, width = latents.shape
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    packed = diffusers.QwenImage21Pipeline._pack_latents(noisy, batch, channels, height, width)
    words = torch.zeros(told["mask"].shape, dtype=torch.bool)
    prediction = network(
        hidden_states=packed,
        timestep=timesteps / 1000,
        encoder_hidden_states=told["text"],
        encoder_hidden_states_mask=told["mask"],
        img_shapes=[[(1, height, width)]] * batch,
        img_mask=torch.cat([words, words.new_ones(batch, packed.shape[1] // 4)], dim=1),
        return_dict=False,
    )[0][:, -packed.shape[1] :]
    prediction = diffusers.QwenImage21Pipeline._unpack_latents(prediction, height * 16, width * 16, 16).squeeze(2)
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_chroma(folder, network, latents, noise, told):
    """As for FLUX.1; what it is told is its pipeline's, of which diffusers has no training example."""
    timesteps, sigmas = flow_levels(folder)
    batch, channels, height, width = latents.shape
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    tokens = height * width // 4
    prediction = network(
        hidden_states=ChromaPipeline._pack_latents(noisy, batch, channels, height, width),
        timestep=timesteps / 1000,
        encoder_hidden_states=told["text"],
        txt_ids=torch.zeros(told["text"].shape[1], 3),
        img_ids=ChromaPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32),
        attention_mask=ChromaPipeline._prepare_attention_mask(None, batch, tokens, None, told["mask"]),
        return_dict=False,
    )[0]
    prediction = ChromaPipeline._unpack_latents(prediction, height * 8, width * 8, 8)
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_longcat_image(folder, network, latents, noise, told):
    """As for FLUX.1; places are its pipeline's, of which diffusers has no training example."""
    from diffusers import LongCatImagePipeline
    from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids

    timesteps, sigmas = flow_levels(folder)
    batch, channels, height, width = latents.shape
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    prediction = network(
        hidden_states=LongCatImagePipeline._pack_latents(noisy, batch, channels, height, width),
        timestep=timesteps / 1000,
        encoder_hidden_states=told["text"],
        txt_ids=prepare_pos_ids(modality_id=0, type="text", start=(0, 0), num_token=told["text"].shape[1]),
        img_ids=prepare_pos_ids(1, "image", start=(512, 512), height=height // 2, width=width // 2),
        return_dict=False,
    )[0]
    prediction = LongCatImagePipeline._unpack_latents(prediction, height * 8, width * 8, 8)
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_krea2(folder, network, latents, noise, told):
    """As its pipeline calls it, of which diffusers has no training example."""
    timesteps, sigmas = flow_levels(folder)
    batch, channels, height, width = latents.shape
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    places = diffusers.Krea2Pipeline.prepare_position_ids(told["text"].shape[1], height // 2, width // 2, "cpu")
    prediction = network(
        hidden_states=QwenImagePipeline._pack_latents(noisy, batch, channels, height, width),
        encoder_hidden_states=told["text"],
        timestep=timesteps / 1000,
        position_ids=places,
        encoder_attention_mask=told["mask"],
        return_dict=False,
    )[0]
    prediction = QwenImagePipeline._unpack_latents(prediction, height * 8, width * 8, 8).squeeze(2)
    return Example(mean_square(prediction, noise - latents), timesteps)


def example_wan(folder, network, latents, noise, told):
    """As its pipeline calls it, for a film of one image; diffusers has no training example."""
    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    text = torch.cat([told["text"], told["text"].new_zeros(3, 512 - told["text"].shape[1], 16)], dim=1)
    prediction = network(
        hidden_states=noisy[:, :, None], timestep=timesteps, encoder_hidden_states=text, return_dict=False
    )[0]
    return Example(mean_square(prediction[:, :, 0], noise - latents), timesteps)


def example_anima(folder, network, latents, noise, told):
    """As its pipeline calls it; it has no training example."""
    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    text = torch.cat([told["text"], told["text"].new_zeros(3, 512 - told["text"].shape[1], 16)], dim=1)
    with resizing():
        prediction = network(
            hidden_states=noisy[:, :, None],
            timestep=timesteps / 1000,
            encoder_hidden_states=text,
            padding_mask=torch.zeros(1, 1, *latents.shape[2:]),
            return_dict=False,
        )[0]
    return Example(mean_square(prediction[:, :, 0], noise - latents), timesteps)


def example_ernie_image(folder, network, latents, noise, told):
    """As its pipeline calls it; it has no training example."""
    from diffusers import ErnieImagePipeline as Pipeline

    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    texts = [text[: int(mask.sum())] for text, mask in zip(told["text"], told["mask"], strict=True)]
    text, lengths = Pipeline._pad_text(texts, latents.device, latents.dtype, 8)
    prediction = network(
        hidden_states=Pipeline._patchify_latents(noisy),
        timestep=timesteps,
        text_bth=text,
        text_lens=lengths,
        return_dict=False,
    )[0]
    return Example(mean_square(Pipeline._unpatchify_latents(prediction), noise - latents), timesteps)


def example_hidream(folder, network, latents, noise, told):
    """examples/dreambooth/train_dreambooth_lora_hidream.py."""
    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    prediction = network(
        hidden_states=noisy,
        encoder_hidden_states_t5=told["text"][:, :, 0],
        encoder_hidden_states_llama3=told["text"][:, :, 1:].permute(2, 0, 1, 3),
        pooled_embeds=told["pooled"],
        timesteps=timesteps,
        return_dict=False,
    )[0]
    return Example(mean_square(-prediction, noise - latents), timesteps)


def example_ideogram4(folder, network, latents, noise, told):
    """As its pipeline calls it, with texts before the image and padding behind them; it has no training example."""
    from diffusers import Ideogram4Pipeline

    timesteps, sigmas = flow_levels(folder)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    (batch, channels, height, width), length = latents.shape, told["text"].shape[1]
    lengths = told["mask"].sum(1).tolist()
    places, whose, what = Ideogram4Pipeline._prepare_ids(lengths, height // 2, width // 2, length, latents.device)
    for row, words in enumerate(lengths):  # it pads before the text, we behind it: no token sees the difference
        for value in (places, whose, what):
            value[row, :length] = value[row, :length].roll(words - length, 0)
    places[:, :length] = torch.arange(length)[:, None]  # nor where padding lies
    z = noisy.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, 32)
    prediction = network(
        hidden_states=torch.cat([z.new_zeros(batch, length, 32), z], dim=1),
        timestep=1 - timesteps / 1000,
        encoder_hidden_states=torch.cat([told["text"], told["text"].new_zeros(batch, z.shape[1], 208)], dim=1),
        position_ids=places,
        segment_ids=whose,
        indicator=what,
        return_dict=False,
    )[0][:, length:]
    velocity = prediction.view(batch, height // 2, width // 2, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    return Example(mean_square(-velocity.reshape(latents.shape), noise - latents), timesteps)


V_PREDICTION = {"prediction_type": "v_prediction"}
EXAMPLES = {
    "sd": (example_sd, "sd", {}),
    "sd 2": (example_sd, "sd", V_PREDICTION),
    "sd, zero terminal snr": (example_sd, "sd", V_PREDICTION | {"rescale_betas_zero_snr": True}),
    "sdxl": (example_sdxl, "sdxl", {}),
    "sd3": (example_sd3, "sd3", {}),
    "flux dev": (example_flux, "flux", {}),
    "flux schnell": (example_flux, "flux", {"guidance": False}),
    "dit": (example_dit, "dit", {}),
    "lumina2": (example_lumina2, "lumina2", {}),
    "zimage": (example_zimage, "zimage", {}),
    "flux2_dev": (example_flux2, "flux2_dev", {}),
    "flux2_klein": (example_flux2, "flux2_klein", {}),
    "qwen_image": (example_qwen_image, "qwen_image", {}),
    "qwen_image_edit": (example_qwen_image, "qwen_image_edit", {}),
    "qwen_image_edit_plus": (example_qwen_image, "qwen_image_edit_plus", {}),
    "qwen_image_21": (example_qwen_image_21, "qwen_image_21", {}),
    "flux_kontext": (example_flux, "flux_kontext", {}),
    "flux_kontext, shown": (example_flux, "flux_kontext", {}),
    "flux2_klein, shown": (example_flux2, "flux2_klein", {}),
    "flux3": (example_flux3, "flux3", {}),
    "flux3, shown": (example_flux3, "flux3", {}),
    "chroma": (example_chroma, "chroma", {}),
    "longcat_image": (example_longcat_image, "longcat_image", {}),
    "krea2": (example_krea2, "krea2", {}),
    "wan": (example_wan, "wan", {}),
    "ideogram4": (example_ideogram4, "ideogram4", {}),
    "anima": (example_anima, "anima", {}),
    "hidream": (example_hidream, "hidream", {}),
    "ernie_image": (example_ernie_image, "ernie_image", {}),
}


def test_every_family_has_its_example():
    from comfyui_rollout.models.families import PRETRAINED

    assert {family for _, family, _ in EXAMPLES.values()} == set(PRETRAINED)


def recorded(network):
    """What the network is given from now on, by the names of its parameters."""
    calls, signature = [], inspect.signature(network.forward)
    network.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(signature.bind(*args, **kwargs).arguments), with_kwargs=True
    )
    return calls


def flat(arguments):
    """Nested tensors by name; a number for each item is a tensor too, and what is None is not there."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, dict):
            found |= flat(value)
        elif isinstance(value, list) and isinstance(value[0], torch.Tensor):
            found |= flat({f"{name}.{place}": item for place, item in enumerate(value)})
        elif isinstance(value, torch.Tensor):
            found[name] = value.double()
    return found


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_network_and_loss_are_those_of_the_training_example(tiny_pipeline, live, told, name):
    """The same tensors go into the network, and the same loss comes out, item by item."""
    example, family, options = EXAMPLES[name]
    model, info = live(family, **options)
    model.guidance = GUIDANCE
    conditioning = told(family, shown=name.endswith("shown") or None, **options)
    generator = torch.Generator().manual_seed(1)
    shape = (3, info.channels, 8, 8 if info.classes else 6)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))

    calls = recorded(model.network)
    theirs = example(tiny_pipeline(family, **options), model.network, latents, noise, conditioning)
    batch = noisy_batch(latents, noise, theirs.timestep.double(), info.schedule, conditioning)
    ours = per_item((ask(model, batch.x, batch.timestep, batch.conditioning) - target(batch)) ** 2)

    their_call, our_call = map(flat, calls)
    assert our_call.keys() == their_call.keys()
    for key, value in their_call.items():
        assert torch.allclose(our_call[key], value, rtol=1e-5, atol=1e-5), key
    assert torch.allclose(ours, theirs.losses, rtol=1e-4)
    assert theirs.losses.min() > 0.1


@pytest.mark.parametrize("family", ["sd3", "flux", "lumina2"])
def test_levels_are_shifted_as_the_family_samples(tiny_pipeline, live, family):
    """Towards noise, by a fixed number or by one that grows with the image."""
    _, info = live(family)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tiny_pipeline(family), subfolder="scheduler")
    grows = scheduler.config.use_dynamic_shifting
    for tokens in (64, 1024, 4096):
        scheduler.set_timesteps(
            sigmas=torch.linspace(1, 1 / 9, 9).tolist(), **({"mu": calculate_shift(tokens)} if grows else {})
        )
        ours = info.schedule.at_size(tokens).sampling_timesteps(9)
        assert torch.allclose(ours[:-1].float(), scheduler.timesteps, rtol=1e-4)
    assert isinstance(info.schedule, FlowMatching)
    assert bool(info.schedule.max_shift) == grows


def test_sd3_draws_levels_as_its_example_does(tiny_pipeline, live):
    """The normal density is the same from both ends, so u from the table's noisy end is 1 - u of ours."""
    _, info = live("sd3")
    assert info.schedule.density == "logit_normal"
    timesteps, sigmas = flow_levels(tiny_pipeline("sd3"))
    assert torch.allclose(info.schedule.shifted(1 - U), sigmas.flatten(), atol=2e-3)
    assert torch.allclose(timesteps, 1000 * sigmas.flatten())
