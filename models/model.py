"""A network with what is needed to call it the same way whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..diffusion.solvers import Conditioning
from .quantization import is_squeezed
from .swapping import NOT_TRAINED, Swap

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin  # slow to import, and only a word here


NO_CLASS = -1
"""The label that stands for none; a network that knows such a class puts its own number in its place."""


NULL_CLASS = "_null_class"
"""In the settings of a network whose last class stands for none; diffusers leaves names with such a beginning alone."""


class Model(ABC):
    """A network of one family; one small subclass a family knows how it is called."""

    network_class: str
    """diffusers' class name, as found in a saved config.json."""

    def __init__(self, network: ModelMixin) -> None:
        self.network = network
        self.adapters: tuple[str, ...] = ()
        """Names of the adapters (LoRA and its relatives) in the network; only they are trained where there are any."""
        self.swap: Swap | None = None
        """The blocks that wait in main memory, if any do."""

    @abstractmethod
    def __call__(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's output (B, C, H, W) at ``x`` (B, C, H, W) and ``timestep`` (B,)."""

    @property
    def classes(self) -> int:
        """How many class labels the network knows; 0 for one that takes none."""
        return 0

    @property
    def null_class(self) -> bool:
        """Whether the network knows a class that stands for none, which guidance needs."""
        return False

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents the network was made for."""
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def device(self) -> torch.device:
        return self.swap.device if self.swap else next(self.network.parameters()).device

    def to(self, device: torch.device) -> Model:
        """Move the network there; returns itself."""
        self.network.to(device)  # type: ignore[arg-type]  # diffusers' wrapper confuses mypy
        return self

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name."""
        return trained_in(self.network)

    def prepare_training(self, dtype: torch.dtype = torch.float32) -> None:
        """Train the adapters, or everything where there are none, in float32: small updates vanish in 16 bits.

        Unless they are rounded stochastically: then in bf16. A network of which only a part is frozen stays so.
        """
        if self.swap and not self.adapters:
            raise ValueError(NOT_TRAINED)
        everything = dict(self.network.named_parameters())
        thawed = self.trained or everything
        for name, weight in everything.items():
            adapted = any(part in self.adapters for part in name.split("."))
            chosen = adapted if self.adapters else name in thawed or is_squeezed(weight)
            if chosen and is_squeezed(weight):
                raise ValueError(
                    "quantised weights cannot be trained themselves: put an Add LoRA node behind the model"
                )
            if weight.is_floating_point():
                weight.requires_grad_(chosen)
            wide = chosen or not self.adapters  # what is frozen of a network works beside what is not
            if wide and weight.dtype in (torch.float16, torch.bfloat16, torch.float32) and weight.dtype != dtype:
                weight.data = weight.data.to(dtype)
        self.network.train()

    def training(self) -> AbstractContextManager[None]:
        """What a training forward and its backward happen in; nothing special for most."""
        return nullcontext()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout and the like are off inside; each module's own mode comes back, whatever happens."""
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def trained_in(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a network that are trained, by name: all of them, or those of the adapters."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


def numbered(labels: Tensor, classes: int) -> Tensor:
    """Class labels (B,) with the number of a network's own null class, the one after all others, in place of none."""
    return torch.where(labels < 0, classes, labels)


class NewModel(Model):
    """A family that can be made from a few numbers, with random weights."""

    @classmethod
    @abstractmethod
    def check(cls, *, size: int, width: int, depth: int) -> None:
        """Raises ValueError, in a trainer's words, where the numbers do not fit together."""

    @classmethod
    @abstractmethod
    def create(
        cls, *, channels: int, size: int, classes: int, width: int, depth: int, null_class: bool = False
    ) -> NewModel:
        """A network with random weights, from the global generator; ``classes`` = 0 for an unconditional one.

        ``null_class``: it knows one more class, which stands for none.
        """
