"""The noise schedule in a model's folder."""

import pytest
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.models.saving import save_model
from comfyui_rollout.models.schedule_file import SCHEDULE_FILE, load_schedule

WEIRD_SCHEDULES = [
    FlowMatching(shift=3.0, density="logit_normal", logit_mean=-0.5),
    DDPM("squaredcos_cap_v2", "v_prediction", zero_terminal_snr=True),
]


@pytest.mark.parametrize("schedule", WEIRD_SCHEDULES, ids=["flow", "ddpm"])
def test_the_schedule_comes_back(small_unet, tmp_path, schedule):
    """Sampling later uses the very schedule of the training."""
    assert load_schedule(save_model(tmp_path / "model", small_unet(), schedule, {})) == schedule


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"type": "x"}', '{"type": "ddpm", "x": 1}', '{"type": "ddpm", "prediction": "velocity"}'],
)
def test_a_bad_schedule_is_named(tmp_path, one_line, text):
    """schedule.json may have been edited by hand."""
    (tmp_path / SCHEDULE_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"schedule\.json") as caught:
        load_schedule(tmp_path)
    assert str(tmp_path / SCHEDULE_FILE) in one_line(caught)
