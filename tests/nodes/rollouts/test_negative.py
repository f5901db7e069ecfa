"""What the network is told where there is no caption."""

import pytest
import torch
from comfyui_rollout.nodes.rollouts.negative import negative_rows
from comfyui_rollout.training.stream import Run, Step, StepError, Stream


def asked(make, **options):
    return Stream(lambda step: negative_rows(step, make, **options), node_id="1", title="Rollout")


def test_its_rows_are_made_once_in_a_run():
    """Captions are large: they are encoded and brought to the device in the first step that wants them."""
    made = []

    def make():
        made.append(1)
        return {"text": torch.ones(1, 2)}

    stream = asked(make)
    run = Run(stream)
    first, second = (Step(run, number).value(stream) for number in range(2))
    assert made == [1]
    assert first["text"] is second["text"]
    assert first["text"].device == run.device


def test_a_data_set_without_captions_and_classes_is_refused_by_the_input():
    """The one that asks for it, with the value that asks for none."""
    for options, name in (({}, "guidance"), ({"name": "reference_guidance"}, "reference_guidance")):
        stream = asked(None, **options)
        with pytest.raises(StepError, match=rf"step 0: {name}: this data set has neither .*; set it to 1$"):
            Step(Run(stream), 0).value(stream)
