"""Models: a new one, one that was saved, and saving one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.data import DatasetInfo
from ...diffusion import seeds
from ...diffusion.schedules import Schedule
from ...files.weights import check_weights, read_weights
from ...files.whole import reserved
from ...hosts.current import current_host
from ...models.adapters.metadata import About, base_of, modelspec
from ...models.adapters.network import merged_weights
from ...models.families import FAMILIES, PRETRAINED
from ...models.hosted import HostedModel
from ...models.loading.index import index_file
from ...models.loading.pretrained import Pretrained
from ...models.loading.source import DTYPES
from ...models.model import NULL_CLASS, Model
from ...models.pipeline_folder import save_pipeline, save_single_file
from ...models.saving import CONFIG, WEIGHTS, check_model_folder, load_model, restore, save_model
from ...models.schedule_file import SCHEDULE_FILE, load_schedule
from ...training.stream import Run, Step, Stream
from ..base import CATEGORY, DATASET, MODEL, SCHEDULE, Node, StepNode, workflow_metadata
from ..inputs import UNIQUE_ID, checked_name, choice, integer, line, plain_name, refusal, switch, wire


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is made or loaded."""

    channels: int
    size: int | None
    """Height and width of its latents; None where it takes any."""
    classes: int
    has_weights: bool
    """Whether it was trained: a new model has nothing to show."""
    pretrained: Pretrained | None = None
    """Where it came from, if it was not made from scratch."""
    adapters: tuple[str, ...] = ()
    """Names of the adapters on it."""
    null_class: bool = False
    """Whether it knows a class that stands for none."""
    trained: Path | None = None
    """The folder with the weights that were trained in this graph, if it comes out of a training."""
    hosted: HostedModel | None = None
    """The host's own model that it came from, if it was one."""

    @property
    def family(self) -> str:
        """The family of models whose encoders make its latents; empty for one that takes any."""
        if self.hosted is not None:
            return self.hosted.family
        return self.pretrained.info.family if self.pretrained is not None else ""


class NewModel(StepNode):
    NODE_ID = "RolloutNewModel"
    DISPLAY_NAME = "New Model"
    CATEGORY = f"{CATEGORY}/model"
    DESCRIPTION = (
        "A small network with random weights, to train from scratch: diffusers' UNet2DModel, or its diffusion "
        "transformer (DiT). Image size, channels and classes are taken from the data set."
    )
    SEARCH_ALIASES = ("unet", "dit", "from scratch", "create model")
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model, made when training starts.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "dataset": wire(DATASET, "What it will be trained on: sets size, channels and classes."),
                "family": choice(list(FAMILIES), "unet", "unet: convolutions, learns quickly. dit: a transformer."),
                "width": integer(
                    32,
                    8,
                    2048,
                    "Channels of the first level (unet) or of every layer (dit, a multiple of 32). Doubling it makes "
                    "four times the weights.",
                    step=8,
                ),
                "depth": integer(2, 1, 48, "Levels (unet: each one halves the image) or layers (dit)."),
                "class_conditional": switch(True, "Tell the network the class label, so that it can be asked for one."),
            },
            "optional": {
                "null_class": switch(
                    False,
                    "One more class, which stands for none: for guidance, and for label_dropout in Noisy Batch, which "
                    "trains it. The dit has it anyway.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self,
        unique_id: str,
        dataset: Stream,
        family: str,
        width: int,
        depth: int,
        class_conditional: bool,
        null_class: bool = False,
    ) -> tuple[Stream]:
        data: DatasetInfo = dataset.about
        classes = len(data.classes) if class_conditional else 0
        if class_conditional and data.without_classes:
            raise ValueError(f"class_conditional: {data.without_classes}")
        if data.size is None:
            raise ValueError(
                "dataset: a new model is made for squares of one size; turn buckets off in Image Folder Dataset, "
                "and clear resolutions"
            )
        FAMILIES[family].check(size=data.size, width=width, depth=depth)
        settings: dict[str, Any] = {"channels": data.channels, "size": data.size, "classes": classes}
        settings |= {"width": width, "depth": depth}
        null_class = classes > 0 and (null_class or family == "dit")
        settings["null_class"] = null_class
        about = ModelInfo(data.channels, data.size, classes, has_weights=False, null_class=null_class)
        return (self.stream(unique_id, {"family": family, "settings": settings}, about=about),)

    def step(self, step: Step, family: str, settings: dict[str, Any]) -> Model:
        return step.keep(lambda: self._create(step, family, settings))

    def _create(self, step: Step, family: str, settings: dict[str, Any]) -> Model:
        with seeds.global_seed(seeds.derive(step.run.seed, step.node_id, "weights")):
            return FAMILIES[family].create(**settings).to(step.run.device)


def check_guidance(info: ModelInfo, name: str = "guidance") -> None:
    """Raises ValueError where a model cannot be asked without caption or class, as guidance does.

    ``name`` is the input that asks for it.
    """
    if info.pretrained is not None:
        family = PRETRAINED[info.pretrained.info.family]
        if not (family.negative_prompts or info.null_class):
            raise ValueError(
                f"{name}: {family.title} is told its guidance and knows no negative prompt: set it to 1; Rollout has "
                "sampling_guidance for such a model"
            )
    elif not info.classes:
        raise ValueError(f"{name}: this model is told no class that it could be guided to: set it to 1")
    elif not info.null_class:
        raise ValueError(
            f"{name}: this model knows no class that stands for none: turn on null_class in New Model, and set "
            "label_dropout in Noisy Batch, which trains it"
        )


def refuse_untrained(model: Stream) -> None:
    """Raises ValueError for a model that has nothing but random weights."""
    if not model.about.has_weights:
        raise ValueError("model: this is a new model with random weights; wire the model that Optimizer Step gives")


def saved_model(folder: Path, node_id: str, title: str) -> Stream:
    """A model folder as a stream: it is loaded once in each run that asks for it."""
    config = check_model_folder(folder)
    null_class = bool(config.get(NULL_CLASS))
    classes = (config.get("num_class_embeds") or config.get("num_embeds_ada_norm") or 0) - null_class
    classes = classes if classes > 1 else 0
    null_class = classes > 0 and (null_class or "num_embeds_ada_norm" in config)
    size = config["sample_size"]
    about = ModelInfo(config["in_channels"], size, classes, has_weights=True, null_class=null_class)

    def step(step: Step, folder: Path) -> Model:
        return step.keep(lambda: load_model(folder).to(step.run.device))

    return Stream(step, {"folder": folder}, node_id, title, about=about)


def trained_model(model: Stream, folder: Path, node_id: str, title: str) -> Stream:
    """The model with the trained weights of a folder, loaded once in each run that asks for it."""
    if not model.about.family:
        return saved_model(folder, node_id, title)

    def step(step: Step, model: Model, folder: Path) -> Model:
        return step.keep(lambda: restore(model, folder))

    about = replace(model.about, has_weights=True, trained=folder)
    return Stream(step, {"model": model, "folder": folder}, node_id, title, about=about)


def saved_schedule(folder: Path) -> Schedule:
    """The schedule of a model folder; raises ValueError if the folder does not say."""
    schedule = load_schedule(folder)
    if schedule is None:
        raise ValueError(f"{str(folder)!r} has no {SCHEDULE_FILE}, so it is not known how it was trained")
    return schedule


def find_model_folder(path: str) -> Path:
    """The folder as given, or below the output folder, or the ``model`` folder inside it (of a run).

    Raises ValueError for an empty line, which Path takes for the current folder.
    """
    if not path.strip():
        raise ValueError("folder: name the folder of a saved model, or of a run")
    given = Path(path).expanduser()
    for place in (given, current_host().output_folder / given):
        for folder in (place, place / "model"):
            if (folder / CONFIG).is_file():
                return folder
            refuse_what_others_load(folder)
    return given


def refuse_what_others_load(folder: Path) -> None:
    """Raises ValueError, naming the node that loads it, for a folder of a pretrained model or of an adapter."""
    if index_file(folder):
        raise ValueError(f"folder: {str(folder)!r} is a pretrained model: use Load Pretrained")
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        raise ValueError(
            f"folder: {str(folder)!r} holds a LoRA: name it in continue_from of Add LoRA, behind Load Pretrained"
        )


class LoadModel(StepNode):
    NODE_ID = "RolloutLoadModel"
    DISPLAY_NAME = "Load Model"
    CATEGORY = f"{CATEGORY}/model"
    DESCRIPTION = (
        "A model that Save Model or Optimizer Step wrote, to train it further or to sample from it. Name its folder, "
        "or the folder of the run."
    )
    SEARCH_ALIASES = ("checkpoint", "continue training", "resume")
    RETURN_TYPES = (MODEL, SCHEDULE)
    RETURN_NAMES = ("model", "schedule")
    OUTPUT_TOOLTIPS = ("The model, loaded when it is needed.", "The noise schedule it was trained with.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folder = line("", "The model's folder, or that of a run: a full path, or one below the output folder.")
        return {"required": {"folder": folder}, "hidden": UNIQUE_ID}

    @classmethod
    def VALIDATE_INPUTS(cls, folder: str) -> bool | str:
        if folder is None:
            return True
        return refusal("folder", lambda: check_saved(folder)) or True

    @classmethod
    def IS_CHANGED(cls, folder: str, **other: Any) -> Any:
        return (find_model_folder(folder) / WEIGHTS).stat().st_mtime_ns

    def build(self, unique_id: str, folder: str) -> tuple[Stream, Schedule]:
        found = find_model_folder(folder)
        return saved_model(found, str(unique_id), self.DISPLAY_NAME), saved_schedule(found)


class SaveModel(Node):
    NODE_ID = "RolloutSaveModel"
    DISPLAY_NAME = "Save Model"
    CATEGORY = f"{CATEGORY}/model"
    DESCRIPTION = (
        "Writes the whole model as a folder that diffusers loads too: a pipeline, if it was a pretrained one. The "
        "workflow is embedded, so the weights file can be dropped on the canvas to get the graph back."
    )
    SEARCH_ALIASES = ("export", "checkpoint", "write model", "merge lora")
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "The trained model, from Optimizer Step."),
                "schedule": wire(SCHEDULE, "Saved beside the weights, for Load Model to give back."),
                "name": line(
                    "rollout_model",
                    "Folder name, below models in the output folder. A number is added, so nothing is overwritten.",
                ),
            },
            "optional": {
                "format": choice(
                    ("folder", "single_file"),
                    "folder",
                    "folder: for Load Model or Load Pretrained, and for diffusers. single_file: the network of a "
                    "pretrained model alone, for ComfyUI's folder diffusion_models.",
                ),
                "dtype": choice(
                    ("fp32", "bf16", "fp16"),
                    "fp32",
                    "Number format of a pretrained model's weights: fp32 to train it further, else half will do.",
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str) -> bool | str:
        return plain_name(name, "folder")

    def build(
        self,
        model: Stream,
        schedule: Schedule,
        name: str,
        format: str = "folder",
        dtype: str = "fp32",
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        refuse_untrained(model)
        checked_name(name, "folder")
        host, metadata = current_host(), workflow_metadata(prompt, extra_pnginfo)
        if model.about.hosted is not None:
            raise ValueError("model: use Save LoRA, or Trained ComfyUI Model and ComfyUI's own nodes that save a MODEL")
        pretrained: Pretrained | None = model.about.pretrained
        models = host.output_folder / "models"
        if pretrained is None:
            if format == "single_file":
                raise ValueError("format: single_file is for pretrained models; choose folder")
            live: Model = Run(model, host=host).value(model)
            with reserved(models, name) as folder:
                save_model(folder, live, schedule, metadata)
            return {"ui": {"text": [str(folder)]}}
        metadata |= modelspec(base_of(pretrained, schedule), About(name), is_lora=False, by_diffusers=True)
        weights = {key: value.to(DTYPES[dtype]) for key, value in trained_weights(model).items()}
        if format == "single_file":
            with reserved(host.model_folders("diffusion_models")[0], name, ".safetensors") as path:
                written = save_single_file(path, pretrained, weights, metadata)
        else:
            with reserved(models, name) as folder:
                written = save_pipeline(folder, pretrained, weights, schedule, metadata)
        return {"ui": {"text": [str(written)]}}


def check_saved(folder: str) -> None:
    """Raises ValueError unless the folder holds a model that can be loaded."""
    found = find_model_folder(folder)
    check_model_folder(found)
    check_weights(found / WEIGHTS)
    saved_schedule(found)


def trained_weights(model: Stream) -> dict[str, Tensor]:
    """The weights of a pretrained model's network after the training; adapters are merged into them.

    Raises ValueError where that cannot be done.
    """
    info: ModelInfo = model.about
    assert info.pretrained is not None
    if info.trained is None:
        raise ValueError("model: it is not trained yet; wire the model that Optimizer Step gives")
    if not info.adapters:
        return read_weights(info.trained / WEIGHTS)
    if info.pretrained.source.quantization != "none":
        raise ValueError("model: an adapter cannot be merged into squeezed weights (quantize); use Save LoRA instead")
    live: Model = Run(model, host=current_host()).value(model)
    return merged_weights(live)
