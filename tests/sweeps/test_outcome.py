"""What came of a sweep: ranked, compared, written."""

import json

from comfyui_rollout.sweeps.outcome import conclude, outcomes, ranked
from PIL import Image
from sweeping import left, planned


def test_the_best_comes_first(tmp_path):
    """By the training loss, and by the validation loss where every run has one; what never ran comes last."""
    sweep = planned(tmp_path)
    left(sweep, 0, losses=[3.0] * 20)
    left(sweep, 1, losses=[3.0] * 18 + [1.0, 1.0])
    assert [each.number for each in ranked(outcomes(sweep))] == [1, 0, 2]
    assert outcomes(sweep)[1].ends["loss"] == 1.0
    left(sweep, 0, losses=[3.0] * 20, take=2, validation_loss=0.5)
    left(sweep, 1, losses=[1.0] * 20, take=2, validation_loss=0.7)
    assert [each.number for each in ranked(outcomes(sweep))] == [0, 1, 2]


def test_what_came_of_it_is_written(tmp_path):
    """A table, the curves and the newest samples, also while some variants wait."""
    sweep = planned(tmp_path)
    left(sweep, 0)
    left(sweep, 1, losses=(2.0, 1.0))
    table = conclude(sweep)
    lines = table.splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["settings", "A.b=2", "A.b=1", "A.b=3"]
    assert lines[3].split() == ["(3)", "A.b=3", "waiting", "0"]
    assert lines[4].startswith("sorted by the training loss")
    assert (sweep.folder / "table.txt").read_text().strip() == table
    rows = json.loads((sweep.folder / "results.json").read_text())
    assert rows[1]["ends"] == {"loss": 1.0}
    with Image.open(sweep.folder / "samples.png") as samples:
        colours = {colour for _, colour in samples.getcolors(1 << 16)}
    assert {(0, 0, 200), (10, 0, 200)} <= colours
    assert not {(0, 0, 100), (10, 0, 100)} & colours
    with Image.open(sweep.folder / "curves.png") as curves:
        assert curves.width == 900


def test_settings_without_effect_are_told(tmp_path):
    """Such as a probability beside a ramp, which has its own: the same curve twice is hard to see in a picture."""
    sweep = planned(tmp_path)
    for number in range(3):
        left(sweep, number, losses=(3.0, 2.0 + number // 2), validation_loss=0.5)
    assert conclude(sweep).splitlines()[4:] == [
        "the same losses to the last digit, so what differs between them had no effect: A.b=1; A.b=2"
    ]


def test_nothing_to_show_is_no_error(tmp_path):
    """Before the first run."""
    assert "waiting" in conclude(planned(tmp_path))
