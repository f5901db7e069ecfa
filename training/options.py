"""How a training is done, beside its loss, its optimizer and its length: one set for nodes, runs and loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
WeightsDtype = Literal["fp32", "bf16"]
OnBadStep = Literal["skip", "stop"]
OnOutOfMemory = Literal["stop", "halve"]


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training, each off, or as is usual, where nothing else is said."""

    accumulation: int = 1
    """Batches of an update."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 = never."""
    ema_decay: float = 0.0
    """0 = no averaged weights."""
    precision: Precision = "fp32"
    """What the forward pass computes in."""
    on_bad_step: OnBadStep = "skip"
    """skip: nothing is learnt from a batch whose loss or gradient is no finite number. stop: its update is made."""
    on_out_of_memory: OnOutOfMemory = "stop"
    """halve: where the memory is too small for the batch, its loss is computed in parts, with the same result."""
    compile: bool = False
    """Compile the network (torch.compile), once for all batch sizes, so that no ragged rollout compiles it anew."""
    weights_dtype: WeightsDtype = "fp32"
    """What is trained is kept in this; bf16 is rounded stochastically, and the optimizer computes in float32."""
    fused_backward: bool = False
    """Each weight is updated in the backward pass, as soon as its gradient is there, which is let go."""
    offload_activations: bool = False
    """What the backward pass needs of the forward waits in main memory."""

    @property
    def one_by_one(self) -> bool:
        """Whether weights are updated one at a time."""
        return self.fused_backward or self.weights_dtype == "bf16"


AS_USUAL = TrainingOptions()
