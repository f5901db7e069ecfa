"""The nodes: sockets and widgets on top of the mathematics and the training step. One file a family."""

from .adapter import AddLora
from .dataset import CombineDatasets, DigitsDataset, ImageFolderDataset
from .encode import EncodeDataset
from .loss import DiffusionLoss, ReflexFlowLoss
from .model import LoadModel, NewModel, SaveModel
from .optimizer import Optimizer, OptimizerStep
from .pretrained import LoadPretrained
from .preview import PlotMetrics, PreviewLatents
from .probe import ExposureBiasProbe
from .rollout import Rollout
from .sample import SampleImages
from .sample_prompts import SamplePrompts
from .save_lora import SaveLora
from .schedule import DDPMSchedule, FlowMatchingSchedule, NoisyBatch

NODES = (
    DigitsDataset,
    ImageFolderDataset,
    EncodeDataset,
    CombineDatasets,
    NewModel,
    LoadModel,
    LoadPretrained,
    AddLora,
    FlowMatchingSchedule,
    DDPMSchedule,
    NoisyBatch,
    Rollout,
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
