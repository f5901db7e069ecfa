"""The optimizer and its step, from a configuration."""

import pytest
from brought_over import inputs, small


@pytest.mark.parametrize("name", ["prodigy", "prodigy-schedulefree", "dadaptation"])
def test_optimizers_that_find_their_rate(name):
    """AdamW at 1.0 would tear the model apart: it gets a usual rate, unless we have that optimizer."""
    imported = small(optimizer=name, learning_rate=1.0)
    ours = inputs(imported, "Optimizer")
    if ours["optimizer"] not in name:
        assert ours["learning_rate"] == 1e-4
        assert any("finds its own rate" in line for line in imported.report.changed)


def test_no_steps_at_all():
    """Both at 0, which SimpleTuner refuses: a number to be written, not one step."""
    imported = small(max_train_steps=0, num_train_epochs=0)
    assert inputs(imported, "OptimizerStep")["steps"] == 1000
    assert any("both are 0, which SimpleTuner refuses" in line for line in imported.report.left)


def test_folder_names_are_only_names():
    """SimpleTuner does not read kohya's, so the import does not either."""
    assert inputs(small(), "ImageFolderDataset")["kohya_folders"] is False
