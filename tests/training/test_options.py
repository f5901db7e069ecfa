"""The options of a training: said alike by a node's widgets, by name, and as such."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
from comfyui_rollout import nodes
from comfyui_rollout.nodes.inputs import defaults, settings_in
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.options import TrainingOptions
from comfyui_rollout.training.stream import Run, Stream

NAMES = [field.name for field in fields(TrainingOptions)]


def test_a_node_that_nobody_touched_trains_as_a_function_that_is_told_nothing():
    """Optimizer Step has a widget for each option, with the same default."""
    widgets = defaults(nodes.OptimizerStep)
    assert {*NAMES} <= widgets.keys()
    assert settings_in(widgets, TrainingOptions) == TrainingOptions()


@pytest.mark.parametrize("name", [name for name in NAMES if get_args(get_type_hints(TrainingOptions)[name])])
def test_the_node_offers_what_there_is(name):
    """In the same order: the first is what is usual."""
    types = nodes.OptimizerStep.INPUT_TYPES()
    choices, _ = {**types["required"], **types["optional"]}[name]
    assert choices == [*get_args(get_type_hints(TrainingOptions)[name])]


def test_options_may_be_given_by_name(regression):
    """As the README does; those that are given beside others as such change them."""
    loss, model, _ = regression()

    def options(**given):
        return prepare(loss, model, OptimizerSettings(), steps=1, run=Run(loss, model), **given).options

    assert options() == TrainingOptions()
    assert options(accumulation=4) == TrainingOptions(accumulation=4)
    both = options(options=TrainingOptions(ema_decay=0.9, clip_norm=0.0), clip_norm=2.0)
    assert both == TrainingOptions(ema_decay=0.9, clip_norm=2.0)


def test_an_unknown_option_is_refused_before_the_model_is_made():
    """Which may take minutes."""
    never = Stream(lambda step: pytest.fail("it is made"), node_id="model")
    with pytest.raises(TypeError, match="acumulation"):
        prepare(never, never, OptimizerSettings(), steps=1, run=Run(never), acumulation=4)
