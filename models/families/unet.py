"""diffusers' UNet2DModel: pixels or latents in, class-conditional or not."""

from __future__ import annotations

from torch import Tensor

from ...diffusion.solvers import Conditioning
from ..model import NULL_CLASS, NewModel, numbered


class UNet(NewModel):
    network_class = "UNet2DModel"

    @classmethod
    def check(cls, *, size: int, width: int, depth: int) -> None:
        if width % 8:
            raise ValueError(f"width {width} must be a multiple of 8, the number of normalisation groups")
        if size % 2 ** (depth - 1):
            raise ValueError(f"depth {depth} halves the image {depth - 1} times, which size {size} does not allow")

    @classmethod
    def create(
        cls, *, channels: int, size: int, classes: int, width: int, depth: int, null_class: bool = False
    ) -> UNet:
        from diffusers.models import UNet2DModel

        network = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=tuple(width * min(2**level, 4) for level in range(depth)),
            # Attention where images are small enough for it to be cheap: everywhere but at full size.
            down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * (depth - 1)),
            up_block_types=(*["AttnUpBlock2D"] * (depth - 1), "UpBlock2D"),
            norm_num_groups=8,
            attention_head_dim=8,
            num_class_embeds=classes + null_class or None,
        )
        if null_class:
            network.register_to_config(**{NULL_CLASS: True})
        return cls(network)

    def __call__(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        labels = conditioning.get("label") if self.classes else None
        if labels is not None and self.null_class:
            labels = numbered(labels, self.classes)
        return self.network(x.to(self.network.dtype), timestep, class_labels=labels).sample

    @property
    def classes(self) -> int:
        return (self.network.config.num_class_embeds or 0) - self.null_class

    @property
    def null_class(self) -> bool:
        return bool(self.network.config.get(NULL_CLASS))
