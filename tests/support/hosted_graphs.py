"""Graphs in API format that train a tiny MODEL inside ComfyUI."""

from comfyui_rollout import NODE_CLASS_MAPPINGS


def training(family="flux", data="images", /, **changes):
    """Loader, data set, step and trainer; ``changes`` are inputs by node, such as ``step={"steps": 5}``."""
    inputs = {
        "loader": ("TinyComfy", {"family": family}),
        "pictures": ("MakeImages", {"count": 4, "oblong": False}),
        "model": ("RolloutFromComfyModel", {
            "model": ["loader", 0], "clip": ["loader", 1], "vae": ["loader", 2], "kind": "lora", "rank": 4,
            "alpha": 4.0, "targets": "attention", "gradient_checkpointing": True,
        }),
        "data": DATA[data],
        "noise": ("RolloutNoisyBatch", {"dataset": ["data", 0], "schedule": ["model", 1]}),
        "rollout": ("Rollout", {
            "batch": ["noise", 0], "model": ["model", 0], "probability": 0.7,
            "max_step_offset": 3, "step_size": 100.0,
        }),
        "loss": ("RolloutReflexFlowLoss", {"batch": ["rollout", 0], "model": ["model", 0]}),
        "optimizer": ("RolloutOptimizer", {"optimizer": "adamw", "learning_rate": 1e-2}),
        "step": ("RolloutOptimizerStep", {
            "loss": ["loss", 0], "model": ["model", 0], "optimizer": ["optimizer", 0], "steps": 3, "seed": 0,
            "accumulation": 1, "clip_norm": 1.0, "ema_decay": 0.0, "precision": "fp32", "preview_every": 2,
            "sample_every": 2, "checkpoint_every": 0, "run_name": family, "samples": ["samples", 0],
        }),
        "samples": ("RolloutSamplePrompts", {
            "model": ["model", 0], "pipeline": ["model", 2], "prompts": "a cat", "negative": "", "guidance": 3.0,
            "width": 64, "height": 64, "steps": 2, "count": 1, "seed": 0,
        }),
        "trained": ("RolloutToComfyModel", {"model": ["step", 0], "strength": 1.0}),
        "save": ("RolloutSaveLora", {
            "model": ["step", 0], "name": family, "format": "comfyui", "dtype": "fp32", "embed_workflow": True,
        }),
        "save_theirs": ("SaveLoRA", {"lora": ["trained", 1], "prefix": f"loras/{family}"}),
        "positive": ("TinyText", {"clip": ["loader", 1], "text": "a cat"}),
        "empty": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampler": ("KSampler", {
            "model": ["trained", 0], "positive": ["positive", 0], "negative": ["positive", 0],
            "latent_image": ["empty", 0], "seed": 1, "steps": 2, "cfg": 1.0,
            "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
        }),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["loader", 2]}),
        "show": ("PreviewImage", {"images": ["decode", 0]}),
    }  # fmt: skip
    return {
        name: {"class_type": kind, "inputs": {**defaults(kind), **given, **changes.get(name, {})}}
        for name, (kind, given) in inputs.items()
    }


DATA = {
    "images": ("RolloutImagesDataset", {
        "images": ["pictures", 0], "masks": ["pictures", 1], "captions": ["pictures", 2], "pipeline": ["model", 2],
        "batch_size": 2, "repeats": 1, "caption_dropout": 0.2,
    }),
    "folder": ("RolloutEncodeDataset", {
        "dataset": ["folder", 0], "pipeline": ["model", 2], "caption_dropout": 0.2, "trigger_word": "",
        "shuffle_tags": False, "caption_variants": 1, "cache_folder": "",
    }),
    "latents": ("RolloutLatentsDataset", {
        "latents": ["encoded", 0], "conditioning": ["texts", 0], "pipeline": ["model", 2], "batch_size": 2,
        "repeats": 1,
    }),
}  # fmt: skip
"""Where the images come from."""


def defaults(kind):
    """What the widgets of one of our nodes say where nobody touches them."""
    if kind not in NODE_CLASS_MAPPINGS:
        return {}
    required = NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()["required"]
    return {name: facts["default"] for name, (_, facts) in required.items() if "default" in facts}


def without(graph, *names):
    """The graph without some of its nodes, which nothing may read."""
    return {name: node for name, node in graph.items() if name not in names}
