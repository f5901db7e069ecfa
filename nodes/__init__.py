"""The nodes: sockets and widgets, thin, on top of all that is below."""

from .data.dataset import CombineDatasets, DigitsDataset, EmojiDataset, ImageFolderDataset
from .data.encode import EncodeDataset
from .data.native import ImagesToDataset, LatentsToDataset
from .data.shards import ShardDataset
from .models.adapter import AddLora
from .models.hosted import TrainComfyModel, TrainedComfyModel
from .models.model import LoadModel, NewModel, SaveModel
from .models.pretrained import LoadPretrained
from .results.preview import PlotMetrics, PreviewLatents
from .results.probe import ExposureBiasProbe
from .results.sample import SampleImages
from .results.sample_prompts import SamplePrompts
from .results.save_lora import SaveLora
from .rollouts.loss import DiffusionLoss, ReflexFlowLoss
from .rollouts.reflow import Reflow
from .rollouts.rollout import Rollout
from .rollouts.schedule import DDPMSchedule, FlowMatchingSchedule, NoisyBatch
from .training.optimizer import Optimizer
from .training.optimizer_step import OptimizerStep

NODES = (
    DigitsDataset,
    EmojiDataset,
    ImageFolderDataset,
    ShardDataset,
    EncodeDataset,
    ImagesToDataset,
    LatentsToDataset,
    CombineDatasets,
    NewModel,
    LoadModel,
    LoadPretrained,
    AddLora,
    TrainComfyModel,
    TrainedComfyModel,
    FlowMatchingSchedule,
    DDPMSchedule,
    NoisyBatch,
    Rollout,
    Reflow,
    DiffusionLoss,
    ReflexFlowLoss,
    Optimizer,
    OptimizerStep,
    SampleImages,
    SamplePrompts,
    SaveModel,
    SaveLora,
    PreviewLatents,
    PlotMetrics,
    ExposureBiasProbe,
)

NODE_CLASS_MAPPINGS = {node.NODE_ID: node for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.NODE_ID: node.DISPLAY_NAME for node in NODES}
