"""What a run will silently do, said before it begins."""

import pytest
import torch
from comfyui_rollout.data.data import DatasetInfo
from comfyui_rollout.data.run_preflight import rollouts_in_words, run_in_words, schedule_in_words, targets_in_words
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.models.adapters.names import Names
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Stream

PLAN = {"max_step_offset": 5, "probability": 1.0}
LAYERS = ("blocks.0.attn.to_q", "blocks.0.attn.to_out.0", "blocks.0.attn2.to_q", "blocks.0.ff.net.2", "proj_out")


def names(*layers):
    return Names("Network", dict.fromkeys(layers or LAYERS, (8, 8)), {})


@pytest.mark.parametrize(
    ("plan", "steps", "lines"),
    [
        (PLAN, 40, []),
        ({**PLAN, "start_step": 39}, 40, []),
        ({**PLAN, "start_step": 1275}, 40, ["rollouts never begin: they start at step 1275, and the training has 40"]),
        ({**PLAN, "start_step": 1}, 1, ["rollouts never begin: they start at step 1, and the training has 1"]),
        (
            {**PLAN, "ramp_steps": 40},
            1,
            ["rollouts never begin: their ramp rises from 0 at step 0, the training's last"],
        ),
        ({"max_step_offset": 0, "start_step": 1275}, 40, []),
        ({**PLAN, "ramp_steps": 40}, 40, []),
        ({**PLAN, "ramp_steps": 40, "prob_start": 1.0, "prob_end": 0.0}, 40, []),
        (
            {**PLAN, "ramp_steps": 200, "start_step": 20},
            121,
            ["the ramp of rollouts ends at step 220, and the run has 121 steps: their probability gets to 0.25 of 0.5"],
        ),
    ],
)
def test_rollouts_that_come_to_nothing(plan, steps, lines):
    """A start behind the end is said, and how far a ramp gets; what works is not talked about."""
    assert rollouts_in_words(RolloutPlan(**plan), steps) == lines


def test_a_warm_up_longer_than_the_run():
    """Else a run of small rates looks like one that does not learn. The rate is what the scheduler makes of it."""
    settings = OptimizerSettings(lr_schedule="cosine", warmup_steps=400, learning_rate=1e-4)
    assert schedule_in_words(settings, 100) == [
        "the warm-up takes the whole run: warmup_steps 400, and the run has 100 steps; the learning rate gets to "
        "0.0001 at its end"
    ]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    scheduler = settings.scheduler(optimizer, 100)
    rates = []
    for _ in range(100):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.99e-4)
    assert schedule_in_words(settings, 401) == []
    assert schedule_in_words(OptimizerSettings(lr_schedule="constant", warmup_steps=400), 100) == []


def test_targets_that_fit_no_layer_are_named():
    """A misspelt one beside good ones is overlooked else."""
    typed = AdapterSettings("a", targets=("attn.to_q", "attn.to_kk"))
    assert targets_in_words(typed, names()) == ["targets: no layer is called attn.to_kk"]
    assert targets_in_words(AdapterSettings("a", targets=("attn.to_q",)), names()) == []
    assert targets_in_words(AdapterSettings("a", targets=r".*\.to_q"), names()) == []


def test_attention_that_a_preset_misses_is_said():
    """As SD 3.5 medium's second attention was."""
    preset = AdapterSettings("a", targets=("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", *JOINT))
    assert targets_in_words(preset, names()) == ["targets: 1 of 3 attention layers get none: blocks.0.attn2.to_q"]
    assert targets_in_words(preset, names("blocks.0.attn.to_q", "proj_out")) == []


JOINT = PRETRAINED["flux"].lora_targets["attention"]


def test_a_run_says_all_of_it():
    """Epochs first, then what is odd, from the streams that Optimizer Step is wired to."""
    data = Stream(lambda step: None, {"batch_size": 4}, about=DatasetInfo("photos", 40, 3, 8))
    settings = AdapterSettings("a", targets=("attn.to_q", "nothing"))
    model = Stream(lambda step: None, {"asked": settings, "names": names()})
    loss = Stream(lambda step: None, {"data": data, "model": model, "plan": RolloutPlan(**PLAN, start_step=900)})
    optimizer = OptimizerSettings(lr_schedule="linear", warmup_steps=500)
    assert run_in_words(loss, model, optimizer, steps=100) == [
        "100 steps = 10 epochs of 40 images",
        "rollouts never begin: they start at step 900, and the training has 100",
        "the warm-up takes the whole run: warmup_steps 500, and the run has 100 steps; the learning rate gets to "
        "0.0001 at its end",
        "targets: no layer is called nothing",
    ]
