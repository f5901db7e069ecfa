"""How much memory a training step needs, found out by going through one that takes none.

The network is made from its settings alone, of tensors that have a shape and no numbers, and its own code is run:
forward, backward, recomputing and all. What would be allocated is counted as it comes and goes. Of blocks that are all
alike two are gone through, and a third one for what each more of them adds.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ..diffusion import losses
from ..diffusion.solvers import Conditioning, ask
from .adapters.network import add_adapter
from .adapters.settings import AdapterSettings
from .adapters.text_encoders import ATTACHED, join
from .families import PretrainedModel
from .quantization import Quantization
from .quiet import quiet
from .swapping import spread, swappable

SQUEEZED = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5}
"""Bytes of one weight, without its few scales."""

TEXT_WIDTHS = (
    "joint_attention_dim",
    "cross_attention_dim",
    "cap_feat_dim",
    "text_hidden_dim",
    "text_dim",
    "llm_features_dim",
    "context_in_dim",
    "text_embed_dim",
    "text_in_dim",
)
"""What networks' settings call the width of a token of text."""
FEW = 2
SHORT_TEXT = 77
LONG_TEXT = 512
"""Tokens of a long caption, where the family sets no limit of its own."""
MOST_TEXT = 2048
"""Tokens of a long caption and of a picture beside it, where the family cuts nothing off."""


@dataclass(frozen=True)
class StepPlan:
    """How a network is going to be trained, as far as memory is concerned."""

    height: int
    """Of the latents."""
    width: int
    batch: int = 1
    adapters: tuple[AdapterSettings, ...] = ()
    """None: all weights are trained."""
    storage: torch.dtype = torch.bfloat16
    autocast: torch.dtype | None = torch.bfloat16
    """What the forward pass computes in; None = in what the weights are kept in."""
    quantization: Quantization = "none"
    gradient_checkpointing: bool = True
    swap: int = 0
    remembered: float = 8.0
    """Bytes that the optimizer and averages keep for each trained weight."""
    trained: torch.dtype = torch.float32
    """What trained weights are kept in."""
    fused: bool = False
    """Whether each gradient is let go as soon as it is there."""
    text_encoders: Callable[[], Mapping[str, nn.Module]] | None = None
    """Makes those that are trained along, of tensors without numbers."""
    guide: Mapping[str, Any] | None = None
    """The settings of the network that guides samples; None where none are drawn with it."""


@dataclass(frozen=True)
class StepMemory:
    """What a step needs on its device, in bytes."""

    weights: int
    """The network and its adapters."""
    remembered: int
    """What the optimizer keeps."""
    activations: int
    """The most that a step has beside these at any time, gradients included."""
    swapped: int
    """How many blocks come and go."""
    blocks: tuple[int, ...]
    """How large those are that could."""
    guide: int = 0
    """The network that guides samples, which is there while they are drawn, when nothing else is computed."""

    @property
    def total(self) -> int:
        return self.weights - self.away(self.swapped) + self.remembered + max(self.activations, self.guide)

    def away(self, count: int) -> int:
        """What ``count`` blocks that come and go take off the device: all but room for two."""
        chosen = [self.blocks[place] for place in spread(count, len(self.blocks))] if count and self.blocks else []
        return max(sum(chosen) - 2 * max(chosen, default=0), 0)


def step_memory(kind: type[PretrainedModel], config: Mapping[str, Any], plan: StepPlan) -> StepMemory:
    """What a training step of this family needs, for a network of these settings (its config.json)."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = network_of(kind, config, plan)
        counts, own = alike(network), swappable(network, kind.always_there)
        few = dict.fromkeys(counts, FEW)
        whole = with_adapters(kind, network, plan)
        trained = list(whole.trained.values())
        blocks = [frozen_bytes(block, plan) for block in own]
        guide = guide_bytes(kind, plan)
        least = most_in_a_step(kind, config, plan, few)
        activations = least + sum(
            (count - FEW) * (most_in_a_step(kind, config, plan, few | {name: FEW + 1}) - least)
            for name, count in counts.items()
        )
        activations += most_unsqueezed(own, plan)
        if plan.trained != torch.float32:  # one weight and its gradient at a time are updated in float32
            activations += 8 * max((weight.numel() for weight in trained), default=0)
    return StepMemory(
        frozen_bytes(whole.network, plan) + sum(weight.nbytes for weight in trained),
        round(sum(weight.numel() for weight in trained) * plan.remembered),
        activations,
        min(plan.swap, len(blocks)),
        tuple(blocks),
        guide,
    )


def alike(network: nn.Module) -> dict[str, int]:
    """Lists with many blocks of one kind, by their names, and how many: each of them adds the same to a step."""
    lists = {name: child for name, child in network.named_children() if isinstance(child, nn.ModuleList) and len(child)}
    counts = {name: Counter(map(kind_of, child)).most_common(1)[0][1] for name, child in lists.items()}
    return {name: count for name, count in counts.items() if count > FEW + 1}


def shortened(blocks: nn.ModuleList, length: int) -> nn.ModuleList:
    """The list with so many blocks of its commonest kind, and with all others."""
    kinds = [kind_of(block) for block in blocks]
    ((commonest, _),) = Counter(kinds).most_common(1)
    out = [place for place, kind in enumerate(kinds) if kind == commonest][length:]
    return nn.ModuleList(block for place, block in enumerate(blocks) if place not in out)


def kind_of(block: nn.Module) -> tuple[Any, ...]:
    weights = ((name, tuple(weight.shape)) for name, weight in block.named_parameters())
    return (type(block), *weights)


def with_adapters(kind: type[PretrainedModel], network: Any, plan: StepPlan) -> PretrainedModel:
    model = kind(network)
    if plan.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    if plan.text_encoders:
        join(model, {part: each.to(plan.storage) for part, each in plan.text_encoders().items()})
    for settings in plan.adapters:
        add_adapter(model, settings, seed=0)
    model.prepare_training(plan.trained)
    return model


def network_of(kind: type[PretrainedModel], config: Mapping[str, Any], plan: StepPlan) -> Any:
    """The network, of tensors without numbers."""
    import diffusers

    with torch.device("meta"), quiet():
        network = getattr(diffusers, kind.network_class).from_config(config)
        kind.countable(network)
        return network.to(plan.storage if plan.adapters else plan.trained)


def pretending(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Have the network's tensors say that they are on the CPU, and choose its ways to compute; for others too."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def pretend(tensor: Tensor) -> Tensor:
        return FakeTensor(mode, tensor.detach(), torch.device("cpu"))

    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(pretend(weight), weight.requires_grad)
        for values in (module._buffers, vars(module)):
            kept = {name: value for name, value in values.items() if isinstance(value, (Tensor, list))}
            values.update(tree_map_only(Tensor, pretend, kept))
    return pretend


def frozen_bytes(module: nn.Module, plan: StepPlan) -> int:
    """Of a module's frozen weights, as they are kept."""
    frozen = [weight for weight in module.parameters() if not weight.requires_grad]
    if plan.quantization == "none":
        return sum(weight.nbytes for weight in frozen)
    saved = plan.storage.itemsize - SQUEEZED[plan.quantization]
    return sum(weight.nbytes for weight in frozen) - round(linear_weights(module) * saved)


def guide_bytes(kind: type[PretrainedModel], plan: StepPlan) -> int:
    """Of the network that guides samples, which is kept as the trained one is."""
    if plan.guide is None:
        return 0
    return frozen_bytes(network_of(kind, plan.guide, plan).to(plan.storage).requires_grad_(False), plan)


def most_unsqueezed(blocks: Iterable[nn.Module], plan: StepPlan) -> int:
    """Bytes of the largest block's weights as it computes with them, where they are kept in less."""
    if plan.quantization == "none":
        return 0
    return max((linear_weights(block) for block in blocks), default=0) * plan.storage.itemsize


def linear_weights(module: nn.Module) -> int:
    """How many weights are squeezed, by whoever squeezes: those of linear layers, but for text encoders'."""
    layers = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith(ATTACHED)
    ]
    return sum(layer.weight.numel() for layer in layers if not layer.weight.requires_grad)


def told_like(kind: type[PretrainedModel], config: Mapping[str, Any], batch: int) -> Conditioning:
    """What the network is told beside the level, for long captions; some of it does not go to every network."""
    if not kind.text_parts:
        return {"label": torch.zeros(batch, dtype=torch.long, device="meta")}
    if "caption_channels" in config and "llama_layers" in config:
        text = [max(config["llama_layers"]) + 2, config["caption_channels"][0]]
    else:
        text = [next(config[name] for name in TEXT_WIDTHS if config.get(name))]
    if "num_text_layers" in config:
        text.insert(0, config["num_text_layers"])
    short = kind.network_part == "unet"
    tokens = min(kind.longest_text if short or kind.longest_text > SHORT_TEXT else LONG_TEXT, MOST_TEXT)
    pooled = config.get("pooled_projection_dim") or config.get("text_emb_dim") or 0
    told = {"time_ids": torch.zeros(batch, 6, device="meta")}
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return told | {
        "text": torch.empty(batch, tokens, *text, device="meta"),
        "pooled": torch.empty(batch, pooled, device="meta"),
    }


def most_in_a_step(
    kind: type[PretrainedModel], config: Mapping[str, Any], plan: StepPlan, lengths: Mapping[str, int]
) -> int:
    """The most bytes at once of a forward and its backward, beside weights and inputs.

    ``lengths`` says of how many blocks some of the network's lists are to be.
    """
    network = network_of(kind, config, plan)
    for name, length in lengths.items():
        setattr(network, name, shortened(getattr(network, name), length))
    model = with_adapters(kind, network, plan)
    pretend = pretending(network)
    inputs = pretend(torch.empty(plan.batch, kind.latent_channels(config), plan.height, plan.width, device="meta"))
    told = {name: pretend(value) for name, value in told_like(kind, config, plan.batch).items()}
    there = [*network.parameters(), *network.buffers(), inputs, *told.values()]
    if "text" in told:
        told["mask"] = torch.ones(told["text"].shape[:2], dtype=torch.bool)  # networks read its numbers
    if model.text_encoders:
        reads: Any = model.text_encoders[0].config
        window = torch.zeros(plan.batch, len(model.text_encoders), reads.max_position_embeddings, dtype=torch.long)
        told["tokens"] = window  # its numbers are looked into
    level = torch.full((plan.batch,), 500.0, dtype=torch.float64)
    for weight in model.trained.values() if plan.fused else ():
        weight.register_post_accumulate_grad_hook(let_go)
    with Counting(there) as count:
        with torch.autocast(
            "cpu", plan.autocast or torch.bfloat16, enabled=plan.autocast is not None, cache_enabled=False
        ):
            output = ask(model, inputs, level, told)
            loss = losses.per_item(losses.elementwise(output, inputs)).mean()
        loss.backward()
    return count.most


def let_go(weight: Tensor) -> None:
    weight.grad = None


class Counting(TorchDispatchMode):
    """Counts the bytes of all tensors that come and go inside, but for those that were there before."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        for value in tree_leaves(results):
            if isinstance(value, Tensor):
                self.add(value.untyped_storage())
        return results

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.remove, key, size)

    def remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
