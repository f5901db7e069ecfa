"""Curves."""

import numpy as np
import pytest
from comfyui_rollout.runs.pictures import plots
from comfyui_rollout.runs.pictures.plots import plot_metrics, smoothed


def test_no_smoothing_is_the_curve_itself():
    """keep = 0 changes nothing."""
    assert smoothed([3.0, 1.0, 2.0], 0) == [3.0, 1.0, 2.0]


def test_smoothing_has_no_start_up_bias():
    """A constant stays constant from the first step on, instead of rising from zero."""
    assert smoothed([2.0] * 5, 0.9) == pytest.approx([2.0] * 5)
    assert smoothed([0.0, 1.0], 0.5) == pytest.approx([0.0, 2 / 3])


def rows(*losses):
    return [{"step": step, "loss": loss, "seconds": {"a": 1.0}} for step, loss in enumerate(losses)]


def ink(picture):
    return int((np.asarray(picture) != 255).sum())


def test_each_metric_has_a_panel():
    """The picture grows with the number of curves."""
    one, two = (plot_metrics(rows(1.0, 2.0), names) for names in (["loss"], ["loss", "step"]))
    assert one.mode == "RGB"
    assert two.height == pytest.approx(2 * one.height, abs=2)


def test_a_curve_is_drawn():
    """The picture depends on the numbers."""
    assert ink(plot_metrics(rows(1.0, 2.0, 0.5), ["loss"])) != ink(plot_metrics(rows(1.0, 0.5, 2.0), ["loss"]))


@pytest.mark.parametrize("losses", [(), (1.0,), (0.0, -1.0), (1.0, float("nan"))])
def test_odd_metrics_can_be_plotted(losses):
    """Nothing, a single point, values that have no logarithm, and a loss that was no number."""
    assert plot_metrics(rows(*losses), ["loss"], log_scale=True).width > 0


def test_axes_have_numbers_that_there_are(monkeypatch):
    """No half step; and around a rollout probability that is 0 throughout, no negative one."""
    figures = []
    monkeypatch.setattr(plots, "drawn", lambda figure: figures.append(figure))
    plot_metrics([{"step": step, "rollout_probability": 0.0} for step in range(20)], ["rollout_probability"])
    (axes,) = figures[0].axes
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert list(axes.get_yticks()) == [0.0]


def test_a_single_step_is_a_point():
    """A line from a point to itself is not seen."""
    drawn = plot_metrics([{"step": 7, "loss": 1.0}], ["loss"])
    assert (np.asarray(drawn) == (0x1D, 0x4E, 0xD8)).all(axis=-1).any()


def test_rows_without_the_metric_are_passed_over():
    """A metric may begin late, and words are not plotted."""
    mixed = [{"step": 0}, {"step": 1, "drift": 1.0}, {"step": 2, "drift": "word"}]
    assert plot_metrics(mixed, ["drift"]).width > 0


def test_the_loss_is_marked_where_its_rows_say_so():
    """And no part of it, nor another metric: one rule, kept in the rows, for this picture and the browser's."""
    calm = [{**row, "loss_flow": 1.0} for row in rows(*[1.0] * 20)]
    marked = [{**row, "spike": 1.0} if row["step"] == 12 else row for row in calm]
    assert ink(plot_metrics(marked, ["loss"])) != ink(plot_metrics(calm, ["loss"]))
    assert ink(plot_metrics(marked, ["loss_flow"])) == ink(plot_metrics(calm, ["loss_flow"]))
