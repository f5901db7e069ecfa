"""Options of SimpleTuner that change what is trained and have no place here: where one is on, the user must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGES: Mapping[str, str] = {
    # Another task
    "controlnet": "a ControlNet is trained there; here the model itself is, on images alone",
    "control": "the model learns to read a control image there; here it learns from images alone",
    "refiner_training": "only some noise levels are trained there, for a refiner; here all of them",
    "slider_lora_target": "a slider between two kinds of images is trained there; here an ordinary LoRA",
    "distillation_method": "the model follows a teacher there; here it learns from the images",
    "twinflow_enabled": "TwinFlow trains for few steps there; here the ordinary loss is used",
    "diffusion_blocks_config": "blocks are trained by noise levels of their own there; here all of them at all levels",
    # Noise and levels
    "diff2flow_enabled": "an epsilon or v model learns a flow there; here it keeps its own prediction",
    "flow_custom_timesteps": "only these timesteps are trained there; here they are drawn from the schedule",
    "flow_cubic_schedule_weights": "timesteps are drawn by these weights there; here from the schedule",
    "timestep_bias_strategy": "some timesteps come more often there; here they are drawn from the schedule",
    # The loss
    "use_soft_min_snr": "the loss is weighted by a soft minimum of the SNR there; here by snr_gamma alone",
    "masked_loss_probability": "masks count in a share of the batches there; here in all that have one",
    "xm_enabled": "the best of several noises is trained there; here one is drawn",
    "nextlat_enabled": "a loss on hidden states is added there; here there is none",
    "crepa_enabled": "a loss on hidden states (CREPA) is added there; here there is none",
    "irepa_enabled": "a loss on hidden states (iREPA) is added there; here there is none",
    "urepa_enabled": "a loss on hidden states (U-REPA) is added there; here there is none",
    "layersync_enabled": "a loss between layers is added there; here there is none",
    "internal_guidance_enabled": "a second head is trained there; here there is none",
    # Weights and their rates
    "tread_config": "a part of the tokens skips layers while training there; here all go through all of them",
    "train_text_encoder": "text encoders are trained too there; here they are not",
    "text_encoder_lr": "text encoders have a rate of their own there; here it is learning_rate",
    "layer_freeze_strategy": "some layers are frozen there; here none is, but by the targets of Add LoRA",
    "freeze_encoder_strategy": "some layers of the text encoder are frozen there; here none is",
    "loraplus_lr_ratio": "lora_B learns faster there; here both halves have one rate",
    "lora_init_type": "the adapter begins otherwise there; here it begins at no change",
    "lr_scale": "the rate grows with the batch there; here it is what learning_rate says",
    "lr_end": "the rate ends at this value there; here where lr_schedule ends",
    "lr_power": "polynomial has this power there; here 1",
    "optimizer_config": "the optimizer has these settings there; here only those of the Optimizer node",
    "ema_update_interval": "the average is brought up to date every so many steps there; here in each",
    "ema_warmup_steps": "the average begins after so many steps there; here at once",
}
"""What is different, by key, where the key is on."""

OFF = ("", "none", "null", "false", "no", "off", "0", "0.0")


def is_off(value: Any) -> bool:
    """Whether an option says nothing: not given, false, 0 or empty, as a value or as a text."""
    if isinstance(value, str):
        return value.strip().lower() in OFF
    return value is None or value == 0 or value in ([], {})
