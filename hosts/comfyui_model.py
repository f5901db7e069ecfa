"""ComfyUI's MODEL as something to train: what it is, a copy of our own, adapters in it, and its own sampler.

Only this file, comfyui_weights.py and comfyui.py know ComfyUI, which is imported when something is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors
from torch.nn import functional as F

from .comfyui_weights import kept_for_backward, load, multiply_with_gradient, on_device

PREFIX = "diffusion_model."
"""What ComfyUI puts before the names of the network's layers."""

AdapterKind = Literal["lora", "lokr", "loha"]
KINDS: dict[AdapterKind, str] = {"lora": "LoRA", "lokr": "LoKr", "loha": "LoHa"}
"""The adapters that ComfyUI can train, by its names."""

NUMBER = "number."
"""Before the name of what a conditioning says in a number; it comes as a tensor (1,)."""

NOT_TOLD = (
    "hooks", "control", "control_apply_to_uncond", "area", "mask", "gligen", "default", "start_percent", "end_percent",
)  # fmt: skip
"""What a conditioning may hold that training cannot follow: text for a part of the image, or of its sampling."""


@dataclass(frozen=True)
class Facts:
    """What is known of a MODEL before it is copied."""

    family: str
    """ComfyUI's name for it: Flux, Lumina2, SDXL ..."""
    channels: int
    """Of its latents."""
    factor: int
    """How many pixels a latent is high and wide."""
    levels: tuple[float, ...]
    """DDPM: its noise level sigma / alpha at each of 1000 timesteps. Empty for flow matching."""
    prediction: Literal["velocity", "epsilon", "v_prediction"]
    shift: float = 1.0
    """Flow matching: how far levels are moved towards noise."""
    is_guided: bool = False
    """Whether the network is told a guidance, in place of being asked about a negative prompt too."""
    colours: tuple[tuple[float, ...], ...] = ()
    """What latents look like: a linear map (channels + 1, 3) to colours in 0..1, whose last row is added."""
    variant: str = ""
    """ComfyUI's name for it among its family: SD15, SDXL, FluxSchnell, WAN21_T2V ..."""


def describe(model: Any) -> Facts:
    """What a MODEL is. Raises ValueError for one that is no denoiser of images that we know how to train."""
    from comfy.model_base import ModelType

    inner, latents = model.model, model.get_model_object("latent_format")
    kinds = {
        ModelType.EPS: "epsilon",
        ModelType.V_PREDICTION: "v_prediction",
        ModelType.FLOW: "velocity",
        ModelType.FLUX: "velocity",
    }
    prediction, family = kinds.get(inner.model_type), type(inner).__name__
    if prediction is None or getattr(latents, "latent_dimensions", 2) not in (2, 3):
        raise ValueError(f"model: {family} ({inner.model_type.name}) is no model of images that can be trained here")
    sampling = model.get_model_object("model_sampling")
    if getattr(sampling, "noise_scale", 1.0) != 1.0:
        raise ValueError(f"model: {family} scales its noise, which cannot be trained here")
    levels, shift = (), 1.0
    if prediction == "velocity":
        half = float(sampling.percent_to_sigma(0.5))
        shift = half / (1 - half)
    else:
        levels = tuple(sampling.sigmas.tolist())
    return Facts(
        family,
        latents.latent_channels,
        latents.spacial_downscale_ratio,
        levels,
        prediction,  # type: ignore[arg-type]
        shift,
        bool(inner.model_config.unet_config.get("guidance_embed")),
        colours_of(latents),
        type(inner.model_config).__name__,
    )


def colours_of(latents: Any) -> tuple[tuple[float, ...], ...]:
    """ComfyUI's own map for previews, whose colours are in -1..1."""
    factors = getattr(latents, "latent_rgb_factors", None)
    if not factors or len(factors) != latents.latent_channels:
        return ()
    bias = getattr(latents, "latent_rgb_factors_bias", None) or (0.0, 0.0, 0.0)
    return (*(tuple(value / 2 for value in row) for row in factors), tuple(value / 2 + 0.5 for value in bias))


def layers_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of the layers that can have an adapter, by ComfyUI's names below ``diffusion_model``."""
    return {
        name.removeprefix(PREFIX): tuple(module.weight.shape)
        for name, module in model.model.named_modules()
        if name.startswith(PREFIX) and getattr(module, "weight", None) is not None
        if hasattr(module, "weight_function") and module.weight.ndim >= 2 and not isinstance(module, nn.Embedding)
    }


def into_latents(model: Any, samples: Tensor) -> Tensor:
    """Latents as the network sees them (B, C, H, W), float32, of what a VAE or a LATENT gives."""
    format = model.get_model_object("latent_format")
    if format.latent_dimensions == 3 and samples.ndim == 4:  # an image is one frame
        samples = samples.unsqueeze(2)
    latents: Tensor = format.process_in(samples.clone().float())
    if latents.ndim == 5:
        if latents.shape[2] != 1:
            raise ValueError(f"latents: a video of {latents.shape[2]} frames cannot be trained here, only images")
        latents = latents.squeeze(2)
    return latents


def told_of(conditioning: Sequence[Any]) -> list[dict[str, Tensor]]:
    """Each entry of a CONDITIONING by names, each tensor (1, ...), on the CPU and out of inference mode.

    Raises ValueError for what training cannot follow, such as a ControlNet.
    """
    return [told_of_one(*entry) for entry in conditioning]


def told_of_one(text: Tensor | None, options: Mapping[str, Any]) -> dict[str, Tensor]:
    told = {} if text is None else {"cross_attn": text.detach().cpu().clone()}
    for name, value in options.items():
        if name in NOT_TOLD or (isinstance(value, (list, dict)) and value):
            raise ValueError(f"conditioning: it holds {name}, which training cannot follow; wire a plain text encoding")
        if isinstance(value, Tensor):
            told[name] = value.detach().cpu().clone()
        elif isinstance(value, (bool, int, float)):
            told[NUMBER + name] = torch.tensor([value], dtype=torch.float64)
    return told


def conditioning_of(told: Mapping[str, Tensor], **more: Any) -> list[Any]:
    """A CONDITIONING of one entry: the inverse of :func:`told_of_one`. ``more`` are options that it lacks."""
    options: dict[str, Any] = dict(more)
    for name, value in told.items():
        if name.startswith(NUMBER):
            number = value.item()
            options[name.removeprefix(NUMBER)] = int(number) if number == int(number) else number
        else:
            options[name] = value
    return [[options.pop("cross_attn", None), options]]


def encode_text(clip: Any, text: str) -> dict[str, Tensor]:
    """What the network is told about a caption, by names, each tensor (1, ...)."""
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return told_of(conditioning)[0]


def encode_images(vae: Any, images: Tensor) -> Tensor:
    """What the VAE makes of images (B, 3, H, W) in -1..1."""
    encoded: Tensor = vae.encode(images.movedim(1, -1) / 2 + 0.5)
    return encoded


def decode_images(vae: Any, samples: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1, on the CPU."""
    pixels: Tensor = vae.decode(samples)
    if pixels.ndim == 5:  # one frame of a video
        pixels = pixels[:, 0]
    return pixels.movedim(-1, 1).float().cpu().clamp(0, 1)


def fingerprint_of(part: Any) -> list[Any]:
    """What tells the weights of a CLIP or a VAE from others: names, sizes and the first numbers of each."""
    patcher = part.patcher
    found: list[Any] = [type(patcher.model).__name__, getattr(part, "layer_idx", None)]
    for name, value in sorted(patcher.model.state_dict().items()):
        found.append((name, tuple(value.shape), str(value.dtype), value.flatten()[:4].double().tolist()))
    return [*found, str(patcher.patches_uuid) if patcher.patches else None]


def new_adapter(kind: AdapterKind, weight: Tensor, rank: int, alpha: float) -> nn.Module:
    """A trainable adapter that changes nothing yet, float32; it draws from the global generator."""
    from comfy.weight_adapter import adapter_maps

    adapter: nn.Module = adapter_maps[KINDS[kind]].create_train(weight, rank=rank, alpha=alpha)
    return adapter


def read_adapters(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Trainable adapters by layer, from a LoRA file in any format that ComfyUI reads for this MODEL.

    Raises ValueError, with what is wrong, where the file holds something else.
    """
    from comfy.lora import load_lora, model_lora_keys_unet
    from comfy.lora_convert import convert_lora

    plain = {name: value.detach().cpu().clone() for name, value in tensors.items() if not is_for_text(name)}
    converted = convert_lora(plain)
    found = load_lora(converted, model_lora_keys_unet(model.model, {}), log_missing=False)
    used = {key for part in found.values() for key in getattr(part, "loaded_keys", ())}
    if not found or (unknown := [name for name in converted if name not in used and not is_alpha(name)]):
        example = "nothing in it" if not found else f"e.g. {unknown[0]}"
        raise ValueError(f"it was made for another model, or is none that can be trained further: {example}")
    return {layer_of(key): trainable(key, part) for key, part in found.items()}


def is_for_text(name: str) -> bool:
    return name.startswith(("lora_te", "text_encoder", "text_encoders.", "te1.", "te2."))


def is_alpha(name: str) -> bool:
    return name.endswith((".alpha", ".rank"))


def layer_of(key: Any) -> str:
    if isinstance(key, tuple):
        raise ValueError(
            f"it has only a part of the layer {key[0]}, as files with diffusers' names may; save it in ComfyUI's format"
        )
    return str(key).removeprefix(PREFIX).removesuffix(".weight")


def trainable(key: Any, part: Any) -> nn.Module:
    """An adapter that was read, to be trained."""
    kind = getattr(part, "name", "")
    if kind not in UNKNOWN_FROM or any(value is not None for value in part.weights[UNKNOWN_FROM[kind] :]):
        raise ValueError(f"what it has for {layer_of(key)} is no plain LoRA, LoKr or LoHa")
    if part.weights[ALPHA] is None:  # without one, an adapter counts once
        rank = next(value for value in reversed(part.weights[:4]) if isinstance(value, Tensor)).shape[0]
        part.weights = (*part.weights[:ALPHA], float(rank), *part.weights[ALPHA + 1 :])
    adapter: nn.Module = part.to_train()
    return adapter.float()


ALPHA = 2
UNKNOWN_FROM = {"lora": 3, "loha": 7, "lokr": 8}
"""From where on ComfyUI's adapters keep what its trainable ones do not know, such as DoRA's lengths."""


def copy_of(model: Any) -> Any:
    """A MODEL with weights of its own, which autograd may go through. Raises ValueError where its loader gives none."""
    try:
        copy = model.clone(disable_dynamic=True, force_deepcopy=True)
    except (RuntimeError, TypeError) as error:  # no way to load it again; a class or a ComfyUI that knows no copies
        raise ValueError(
            f"model: its loader ({type(model).__name__}) gives no copy that could be trained; load it with Load "
            "Checkpoint or Load Diffusion Model"
        ) from error
    if hasattr(copy, "is_dynamic") and copy.is_dynamic():
        raise ValueError("model: its weights come and go while it computes (dynamic VRAM), so it cannot be trained")
    return copy


class PlainSampling(nn.Module):
    """In place of a model's own noise scaling: what goes in and comes out of the network, as it is."""

    def __init__(self, timestep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.timestep = timestep

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise

    def calculate_denoised(self, sigma: Tensor, output: Tensor, noise: Tensor) -> Tensor:
        return output


class LiveModel:
    """A copy of a MODEL with adapters in it, on ComfyUI's device and under its memory management."""

    def __init__(self, model: Any, guidance: float, offloading: bool = False) -> None:
        """Must be made out of inference mode. Raises ValueError where the MODEL cannot be copied.

        With ``offloading``, weights come onto the device layer by layer, each time they are wanted.
        """
        self.patcher, self.guidance, self.offloading = copy_of(model), guidance, offloading
        multiply_with_gradient(self.patcher)
        self.loaded = 0
        """Bytes of it on the device, as it was loaded for training."""
        self.model = self.patcher.model
        self.model.requires_grad_(False)
        self.network = nn.Module()
        """The adapters alone, by ComfyUI's names of their layers."""
        self.exact = False
        """Whether autograd has to keep what the network changes in place; if its blocks are computed again, not."""
        sampling = self.patcher.get_model_object("model_sampling")
        is_flow = describe(model).prediction == "velocity"
        self.plain = PlainSampling((lambda t: sampling.timestep(t / 1000)) if is_flow else (lambda t: t))
        self.is_spatial = self.patcher.get_model_object("latent_format").latent_dimensions == 2

    @property
    def device(self) -> torch.device:
        device: torch.device = self.patcher.load_device
        return device

    def weight(self, layer: str) -> Tensor:
        weight: Tensor = self.model.get_submodule(PREFIX + layer).weight
        return weight

    def attach(self, adapters: Mapping[str, nn.Module]) -> None:
        """Put adapters on layers, by name, and load everything onto the device."""
        from comfy.weight_adapter import BypassInjectionManager

        manager = BypassInjectionManager()
        for layer, adapter in adapters.items():
            compute_in_own_format(adapter, self.weight(layer).shape)
            manager.add_adapter(PREFIX + layer, adapter)  # type: ignore[arg-type]
            place(self.network, PREFIX + layer, adapter)
        self.patcher.set_injections("rollout", manager.create_injections(self.model))
        self.load()

    def load(self) -> None:
        """Have it where it is trained. Raises ValueError where that is the device, and it does not fit there."""
        load(self.patcher, self.offloading)
        self.loaded = on_device(self.patcher)

    @contextmanager
    def training(self) -> Iterator[None]:
        """A forward and its backward: ComfyUI computes in ways that have a gradient."""
        from comfy import model_management

        if not self.patcher.is_injected or on_device(self.patcher) != self.loaded:
            self.load()  # samples were drawn meanwhile, with more of the network there, or with a VAE in its place
        before, model_management.in_training = model_management.in_training, True
        try:
            with (
                kept_for_backward(self.offloading),
                allow_mutation_on_saved_tensors() if self.exact else nullcontext(),
            ):
                yield
        finally:
            model_management.in_training = before

    def __call__(self, x: Tensor, timestep: Tensor, told: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """The network's output (B, C, H, W), float32, for ``x`` (B, C, H, W), timesteps 0..1000 (B,), and what it is
        told about each item (see :func:`told_of`)."""
        flat = not self.is_spatial and x.ndim == 4
        if flat:  # a model of videos takes an image for one frame
            x = x.unsqueeze(2)
        conditions = [self.conditions(each, x[place : place + 1]) for place, each in enumerate(told)]
        output = torch.empty_like(x, dtype=torch.float32)
        groups = list(alike(conditions))
        if len(groups) == 1:
            output = self.apply(x, timestep, conditions)
        else:  # texts of unequal length, which this network does not take together
            parts = [self.apply(x[group], timestep[group], [conditions[place] for place in group]) for group in groups]
            order = torch.tensor([place for group in groups for place in group], device=x.device).argsort()
            output = torch.cat(parts)[order]
        return output.squeeze(2) if flat else output

    def conditions(self, told: Mapping[str, Tensor], x: Tensor) -> dict[str, Any]:
        """ComfyUI's own reading of what one item is told."""
        from comfy.sampler_helpers import convert_cond
        from comfy.samplers import encode_model_conds

        native = convert_cond(conditioning_of(told, guidance=self.guidance))
        try:
            encoded = encode_model_conds(
                self.model.extra_conds, native, x, x.device, "positive", latent_image=torch.zeros_like(x)
            )
        except KeyError as error:
            raise ValueError(
                f"conditioning: it lacks {error.args[0]}, which this network is told; encode the text with its own CLIP"
            ) from error
        return {name: value.process_cond(batch_size=1, area=None) for name, value in encoded[0]["model_conds"].items()}

    def apply(self, x: Tensor, timestep: Tensor, conditions: Sequence[Mapping[str, Any]]) -> Tensor:
        """One forward of items that go together."""
        from comfy.patcher_extension import merge_nested_dicts
        from comfy.samplers import cond_cat

        options = dict(self.patcher.model_options.get("transformer_options", {}))
        options["wrappers"] = merge_nested_dicts(dict(options.get("wrappers", {})), self.patcher.wrappers)
        options |= {"sigmas": timestep, "cond_or_uncond": [0], "uuids": []}
        own, self.model.model_sampling = self.model.model_sampling, self.plain
        try:
            output: Tensor = self.model.apply_model(
                x, timestep, **cond_cat(list(conditions)), transformer_options=options
            )
        finally:
            self.model.model_sampling = own
        return output


SAMPLER = ("euler", "simple")
"""ComfyUI's sampler and scheduler that suit every family."""


def draw(
    model: Any,
    positive: Mapping[str, Tensor],
    negative: Mapping[str, Tensor] | None,
    *,
    size: tuple[int, int],
    steps: int,
    guidance: float,
    seed: int,
    check: Callable[[], None],
) -> Tensor:
    """What ComfyUI's own sampler makes of an empty latent of that (height, width), for its VAE: as KSampler does.

    With ``negative`` it is guided by it, otherwise the network is told the ``guidance``.
    """
    from comfy import sample as comfy_sample

    latents = model.get_model_object("latent_format")
    frames = (1,) if latents.latent_dimensions == 3 else ()
    empty = torch.zeros(1, latents.latent_channels, *frames, *size)
    empty = comfy_sample.fix_empty_latent_channels(model, empty)
    told = conditioning_of(positive, guidance=guidance)
    with torch.no_grad():
        samples: Tensor = comfy_sample.sample(
            model,
            comfy_sample.prepare_noise(empty, seed),
            steps,
            guidance if negative is not None else 1.0,
            *SAMPLER,
            told,
            conditioning_of(negative) if negative is not None else told,
            empty,
            callback=lambda *_: check(),
            disable_pbar=True,
            seed=seed,
        )
    return samples


def patched(model: Any, tensors: Mapping[str, Tensor], strength: float) -> Any:
    """The MODEL with an adapter on top, for KSampler and others, as Load LoRA makes it."""
    from comfy.sd import load_lora_for_models

    return load_lora_for_models(model, None, dict(tensors), strength, 0)[0]


def alike(conditions: Sequence[Mapping[str, Any]]) -> Iterator[list[int]]:
    """Places of items that one forward can take together."""
    from comfy.samplers import cond_equal_size

    groups: list[list[int]] = []
    for place, each in enumerate(conditions):
        group = next((group for group in groups if cond_equal_size(conditions[group[0]], each)), None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return iter(groups)


def place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module into a tree of modules, so that its weights have its layer's name before theirs."""
    *above, last = path.split(".")
    for part in above:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def compute_in_own_format(adapter: Any, shape: torch.Size) -> None:
    """Have an adapter compute in the format of its weights, and answer in the layer's: small updates vanish in 16 bits.

    Autocast, where it is on, still has the last word. ``shape`` is that of the layer's weight.
    """
    from comfy.weight_adapter import WeightAdapterTrainBase

    knows_how = type(adapter).h is not WeightAdapterTrainBase.h
    plain = adapter.h if knows_how else partial(through_weight, adapter, shape)

    def h(x: Tensor, base: Tensor) -> Tensor:
        answer: Tensor = plain(x.float(), base.float())
        return answer.to(base.dtype)

    adapter.h = h


def through_weight(adapter: Any, shape: torch.Size, x: Tensor, base: Tensor) -> Tensor:
    """What an adapter adds to a layer's output, where it only says what it adds to its weight, as ComfyUI's LoHa."""
    delta = adapter(x.new_zeros(shape))
    if not adapter.is_conv:
        return F.linear(x, delta)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[adapter.conv_dim - 1]
    return convolve(x, delta, **adapter.kw_dict)
