"""A linear regression, fitted."""

import pytest
from comfyui_rollout.runs.fit import fit
from told import SETTINGS


@pytest.fixture
def fitted(regression):
    """``fitted(steps=..., looks=...)``: a linear regression, without a folder unless one is named."""

    def run(network=None, **options):
        loss, model, _ = regression(network, keep_mode=None)
        return fit(loss, model, SETTINGS, device="cpu", **options)

    return run
