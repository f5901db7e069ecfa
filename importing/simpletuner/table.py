"""Every SimpleTuner option that has a place in our graph, its default there, and what becomes of the others.

Read from SimpleTuner's documentation and field registry of August 2026 (commit bc8e6ab7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any


@dataclass(frozen=True)
class Key:
    """One option."""

    kind: str
    """How its value is read: text, number, integer, switch, or anything (JSON)."""
    default: Any
    """What SimpleTuner takes where the option is not set."""
    goes_to: str
    """Where it goes, as ``--set`` names inputs: Node.input; empty for what only decides which nodes there are."""
    note: str = ""


def text(goes_to: str, note: str = "", default: str = "") -> Key:
    return Key("text", default, goes_to, note)


def number(goes_to: str, default: float | None, note: str = "") -> Key:
    return Key("number", default, goes_to, note)


def integer(goes_to: str, default: int | None, note: str = "") -> Key:
    return Key("integer", default, goes_to, note)


def switch(goes_to: str, default: bool | None, note: str = "") -> Key:
    return Key("switch", default, goes_to, note)


def anything(goes_to: str, note: str = "") -> Key:
    return Key("anything", None, goes_to, note)


CONFIG: Mapping[str, Key] = {
    # The model
    "model_family": text("LoadPretrained.path", "where no path is given: the family's model on the hub"),
    "model_flavour": text("LoadPretrained.path", "which of the family's models"),
    "pretrained_model_name_or_path": text("LoadPretrained.path"),
    "pretrained_transformer_model_name_or_path": text(
        "LoadPretrained.path, LoadPretrained.base", "a .safetensors file; the model it belongs to becomes base"
    ),
    "pretrained_unet_model_name_or_path": text("LoadPretrained.path, LoadPretrained.base", "likewise"),
    "pretrained_vae_model_name_or_path": text("LoadPretrained.vae", "a file or folder that is here"),
    "base_model_precision": text("LoadPretrained.quantize", "int8, fp8 and nf4 by name; int4 is nf4", "no_change"),
    "base_model_default_dtype": text("LoadPretrained.storage", "fp16 and bf16 follow mixed_precision", "bf16"),
    "gradient_checkpointing": switch("LoadPretrained.gradient_checkpointing", True, "always on with int8 and fp8"),
    "prediction_type": text("LoadPretrained.prediction", "flow_matching brings a flow-matching schedule"),
    "flux_guidance_value": number("LoadPretrained.guidance", 1.0),
    "flux_guidance_mode": text("LoadPretrained.guidance", "random-range becomes its middle", "constant"),
    "flux_guidance_min": number("LoadPretrained.guidance", 0.0, "with random-range"),
    "flux_guidance_max": number("LoadPretrained.guidance", 4.0, "with random-range"),
    # What is trained
    "model_type": text("", "lora brings Add LoRA and Save LoRA, full brings Save Model", "full"),
    "lora_type": text("AddLora.kind", "lycoris reads lycoris_config", "standard"),
    "lycoris_config": anything("AddLora.kind", "file with algo, linear_dim, linear_alpha, dropout"),
    "lora_rank": integer("AddLora.rank", 16),
    "lora_alpha": number("AddLora.alpha", None, "not set: the rank"),
    "lora_dropout": number("AddLora.dropout", 0.1),
    "use_dora": switch("AddLora.dora", False),
    "flux_lora_target": text("AddLora.targets, AddLora.pattern", "its layers, or the nearest preset", "all"),
    "peft_lora_target_modules": anything("AddLora.pattern", "a list of layers"),
    "train_text_encoder": switch("AddLora.text_encoders", False, "with a standard LoRA of SD 1.x, 2.x and SDXL"),
    "init_lora": text("AddLora.continue_from"),
    "lora_format": text("SaveLora.format", default="diffusers"),
    # The data
    "data_backend_config": anything("", "file with the data sets; see below"),
    "resolution": number("ImageFolderDataset.size", 1024.0, "for data sets without their own"),
    "resolution_type": text("ImageFolderDataset.size", "area counts megapixels", "pixel_area"),
    "caption_dropout_probability": number("EncodeDataset.caption_dropout", 0.1),
    "train_batch_size": integer("ImageFolderDataset.batch_size", 4),
    "data_backend_sampling": text(
        "CombineDatasets.weight_1", "auto-weighting multiplies probability by the images", "auto-weighting"
    ),
    # Noise
    "flow_schedule_shift": number("FlowMatchingSchedule.shift", 3.0),
    "flow_schedule_auto_shift": switch("", False, "the model's own schedule, whose shift grows with the image"),
    "flow_sigmoid_scale": number("FlowMatchingSchedule.logit_std", 1.0, "of sigmoid, which we call logit_normal"),
    "flow_use_uniform_schedule": switch("FlowMatchingSchedule.timestep_sampling", False),
    "flow_use_beta_schedule": switch("FlowMatchingSchedule.timestep_sampling", False),
    "flow_beta_schedule_alpha": number("FlowMatchingSchedule.beta_alpha", 2.0),
    "flow_beta_schedule_beta": number("FlowMatchingSchedule.beta_beta", 2.0),
    "rescale_betas_zero_snr": switch("DDPMSchedule.zero_terminal_snr", False),
    "mixflow_enabled": switch("NoisyBatch.mixflow", False, "refused with rollouts, as SimpleTuner does"),
    "mixflow_gamma": number("NoisyBatch.mixflow", 0.8, "where mixflow_enabled is on"),
    "input_perturbation": number("NoisyBatch.input_perturbation", 0.0),
    "input_perturbation_steps": integer("NoisyBatch.perturbation_steps", 0),
    "offset_noise": switch("NoisyBatch.noise_offset", False),
    "noise_offset": number("NoisyBatch.noise_offset", 0.1, "where offset_noise is on"),
    # Rollouts
    "scheduled_sampling_max_step_offset": integer("Rollout.max_step_offset", 0),
    "scheduled_sampling_probability": number("Rollout.probability", 0.0),
    "scheduled_sampling_prob_start": number("Rollout.prob_start", 0.0),
    "scheduled_sampling_prob_end": number("Rollout.prob_end", 0.5),
    "scheduled_sampling_ramp_steps": integer("Rollout.ramp_steps", 0),
    "scheduled_sampling_start_step": integer("Rollout.start_step", 0),
    "scheduled_sampling_ramp_shape": text("Rollout.ramp_shape", default="linear"),
    "scheduled_sampling_strategy": text("Rollout.strategy", default="uniform"),
    "scheduled_sampling_sampler": text("Rollout.sampler", "euler for flow matching: what SimpleTuner ran", "unipc"),
    "scheduled_sampling_order": integer("Rollout.order", 2),
    # The loss
    "scheduled_sampling_reflexflow": switch(
        "ReflexFlowLoss.reflexflow", None, "not set: auto; true: enable; false brings Diffusion Loss"
    ),
    "scheduled_sampling_reflexflow_alpha": number("ReflexFlowLoss.alpha", 1.0),
    "scheduled_sampling_reflexflow_beta1": number("ReflexFlowLoss.beta1", 10.0),
    "scheduled_sampling_reflexflow_beta2": number("ReflexFlowLoss.beta2", 1.0),
    "loss_type": text("DiffusionLoss.loss_type", "l2 is mse; smooth_l1 becomes huber", "l2"),
    "huber_c": number("DiffusionLoss.huber_c", 0.1),
    "huber_schedule": text("DiffusionLoss.huber_c", "only constant; others become constant", "snr"),
    "snr_gamma": number("DiffusionLoss.snr_gamma", None, "not for flow matching"),
    # Training
    "learning_rate": number("Optimizer.learning_rate", 4e-7),
    "optimizer": text("Optimizer.optimizer", "the nearest of ours", "adamw_bf16"),
    "lr_scheduler": text("Optimizer.lr_schedule", "sine becomes cosine", "constant_with_warmup"),
    "lr_warmup_steps": integer("Optimizer.warmup_steps", 0),
    "lr_num_cycles": integer("Optimizer.num_cycles", 1),
    "adam_weight_decay": number("Optimizer.weight_decay", 0.01),
    "adam_beta1": number("Optimizer.beta1", 0.9),
    "adam_beta2": number("Optimizer.beta2", 0.999),
    "optimizer_beta1": number("Optimizer.beta1", None, "before adam_beta1"),
    "optimizer_beta2": number("Optimizer.beta2", None, "before adam_beta2"),
    "max_train_steps": integer("OptimizerStep.steps", 0, "0: num_train_epochs decides"),
    "num_train_epochs": integer("OptimizerStep.steps", 1, "counted with the images that are found"),
    "seed": integer("OptimizerStep.seed", 0),
    "gradient_accumulation_steps": integer("OptimizerStep.accumulation", 1),
    "max_grad_norm": number("OptimizerStep.clip_norm", 2.0),
    "grad_clip_method": text("OptimizerStep.clip_norm", "value becomes norm", "value"),
    "use_ema": switch("OptimizerStep.ema_decay", False, "false: 0"),
    "ema_decay": number("OptimizerStep.ema_decay", 0.995),
    "mixed_precision": text("OptimizerStep.precision", "no is fp32", "bf16"),
    "validation_step_interval": integer("OptimizerStep.sample_every", 100),
    "validation_steps": integer("OptimizerStep.sample_every", None, "older name of validation_step_interval"),
    "checkpoint_step_interval": integer("OptimizerStep.checkpoint_every", 500),
    "checkpointing_steps": integer("OptimizerStep.checkpoint_every", None, "older name of checkpoint_step_interval"),
    "checkpoints_total_limit": integer("OptimizerStep.keep_checkpoints", 5),
    "output_dir": text("OptimizerStep.run_name", "its last folder; our runs lie in the output folder"),
    # Samples
    "validation_disable": switch("", False, "true: no Sample Prompts"),
    "validation_prompt": text("SamplePrompts.prompts"),
    "user_prompt_library": anything("SamplePrompts.prompts", "file with further prompts"),
    "validation_negative_prompt": text("SamplePrompts.negative", default="blurry, cropped, ugly"),
    "validation_guidance": number("SamplePrompts.guidance", 7.5),
    "validation_resolution": text("SamplePrompts.width, SamplePrompts.height", "the first of several", "256"),
    "validation_num_inference_steps": integer("SamplePrompts.steps", 30),
    "num_validation_images": integer("SamplePrompts.count", 1),
    "validation_seed": integer("SamplePrompts.seed", None, "not set: seed"),
}
"""Keys of the configuration."""

BACKEND: Mapping[str, Key] = {
    "id": text("", "the title of the data set's node"),
    "type": text("", "local; others have to be downloaded first", "local"),
    "dataset_type": text("", "image; text_embeds and image_embeds are caches, which we need not be told", "image"),
    "dataset_name": text("", "of type huggingface: named in the report, to be saved as files"),
    "disabled": switch("", False, "true: left out"),
    "disable": switch("", False, "as disabled"),
    "instance_data_dir": text("ImageFolderDataset.folder"),
    "resolution": number("ImageFolderDataset.size", None, "not set: that of the configuration"),
    "resolution_type": text("ImageFolderDataset.size", "area counts megapixels; pixel is the smaller edge, and said"),
    "repeats": integer("ImageFolderDataset.repeats", 0, "plus one: SimpleTuner counts the further times"),
    "crop": switch("ImageFolderDataset.buckets", False, "true with crop_aspect square: no buckets"),
    "crop_style": text("ImageFolderDataset.crop", "random, or else center", "random"),
    "crop_aspect": text("ImageFolderDataset.buckets", "anything but square: aspect buckets", "square"),
    "caption_strategy": text("ImageFolderDataset.default_caption", "textfile, or instanceprompt", "filename"),
    "instance_prompt": text("ImageFolderDataset.default_caption, EncodeDataset.trigger_word"),
    "only_instance_prompt": switch("ImageFolderDataset.default_caption", False),
    "prepend_instance_prompt": switch("EncodeDataset.trigger_word", False),
    "caption_shuffle": anything("EncodeDataset.shuffle_tags, EncodeDataset.caption_variants", "see below"),
    "conditioning_data": anything("ImageFolderDataset.control", "the folder of the data set of that id, for pairs"),
    "probability": number("CombineDatasets.weight_1", 1.0, "weight_2 of the second, and so on"),
}
"""Keys of a data set in the file that data_backend_config names."""

CAPTION_SHUFFLE: Mapping[str, Key] = {
    "enable": switch("EncodeDataset.shuffle_tags", False),
    "count": integer("EncodeDataset.caption_variants", 1, "plus one: the caption as it was written"),
    "split_on": text("", "only comma", "comma"),
    "position_start": integer("", 0, "not offered"),
}
"""Keys of a data set's caption_shuffle."""

LYCORIS: Mapping[str, Key] = {
    "algo": text("AddLora.kind", "lora, locon, lokr, loha; others become lokr", "lokr"),
    "linear_dim": integer("AddLora.rank", 16),
    "linear_alpha": number("AddLora.alpha", 1.0),
    "factor": integer("AddLora.factor", -1, "of LoKr"),
    "apply_preset": anything("AddLora.targets, AddLora.pattern", "target_module Attention and FeedForward"),
    "full_matrix": switch("AddLora.rank", False, "true: 4096, with which LoKr has whole matrices"),
    "dropout": number("AddLora.dropout", 0.0),
}
"""Keys of the file that lycoris_config names."""

IGNORED: Mapping[str, str] = {
    "hub_*": "nothing is uploaded",
    "push_to_*": "nothing is uploaded",
    "push_checkpoints_to_hub": "nothing is uploaded",
    "publishing_config": "nothing is uploaded",
    "webhook*": "no messages are sent",
    "report_to": "curves and metrics are always written to the run's folder",
    "tracker_*": "curves and metrics are always written to the run's folder",
    "logging_dir": "curves and metrics are always written to the run's folder",
    "aws_*": "access data of a storage service",
    "*_token": "a secret, which does not belong into a workflow",
    "resume_from_checkpoint": "SimpleTuner's checkpoints are others; Optimizer Step: resume goes on with our runs",
    "cache_dir*": "encoded data sets are kept where Encode Dataset says",
    "metadata_backend": "sizes are read from the images",
    "skip_file_discovery": "only what changed is read again",
    "disable_benchmark": "there is none",
    "i_know_what_i_am_doing": "what cannot work is refused",
}
"""Keys that need no place: by pattern, with the reason. They are not kept: workflows are passed on."""


def ignored(key: str) -> str:
    """Why a key may be left out; empty for one that may not."""
    return next((reason for pattern, reason in IGNORED.items() if fnmatch(key, pattern)), "")


def key_table() -> str:
    """All keys as Markdown tables, for docs/import_simpletuner.md."""
    titles = {
        "Configuration": CONFIG,
        "Data sets (data_backend_config)": BACKEND,
        "Shuffled tags (caption_shuffle of a data set)": CAPTION_SHUFFLE,
        "LyCORIS (lycoris_config)": LYCORIS,
    }
    lines: list[str] = []
    for title, table in titles.items():
        lines += [
            f"### {title}",
            "",
            "| SimpleTuner | default there | becomes | remarks |",
            "| --- | --- | --- | --- |",
        ]
        for name, key in table.items():
            default = "" if key.default in (None, "") else f"`{str(key.default).lower()}`"
            lines.append(f"| `{name}` | {default} | {_code(key.goes_to)} | {key.note} |")
        lines.append("")
    lines += ["### Ignored", "", "| SimpleTuner | why |", "| --- | --- |"]
    lines += [f"| `{pattern}` | {reason} |" for pattern, reason in IGNORED.items()]
    return "\n".join(lines)


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", ") if name)
