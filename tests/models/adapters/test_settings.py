"""Settings of an adapter that do not go together."""

import pytest
from comfyui_rollout.models.adapters.settings import AdapterSettings


def test_settings_that_do_not_go_together_are_refused():
    """Before anything is loaded."""
    with pytest.raises(ValueError, match="dora goes with kind lora only, not with lokr"):
        AdapterSettings("a", "lokr", dora=True)
    with pytest.raises(ValueError, match="rslora goes with kind lora only, not with loha"):
        AdapterSettings("a", "loha", rslora=True)
    with pytest.raises(ValueError, match="kind 'oft' is none of lora, lokr, loha"):
        AdapterSettings("a", "oft")
