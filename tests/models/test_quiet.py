"""diffusers and transformers are quiet where we load, and nowhere else."""

import pytest
from comfyui_rollout.models.quiet import quiet
from diffusers.utils import logging as diffusers_log
from huggingface_hub import utils as hub
from transformers.utils import logging as transformers_log


def state():
    return [
        *(log.get_verbosity() for log in (diffusers_log, transformers_log, hub.logging)),
        *(log.is_progress_bar_enabled() for log in (diffusers_log, transformers_log)),
        hub.are_progress_bars_disabled(),
    ]


@pytest.fixture
def loud():
    """Everything is said, before and after the test."""
    before = state()
    for log in (diffusers_log, transformers_log, hub.logging):
        log.set_verbosity_info()
    yield
    for log, verbosity in zip((diffusers_log, transformers_log, hub.logging), before, strict=False):
        log.set_verbosity(verbosity)


@pytest.mark.usefixtures("loud")
def test_quiet_inside_as_before_outside():
    """Also when it fails inside; the bars of downloads stay, for these take minutes."""
    before = state()
    inside = []

    def fail():
        with quiet():
            inside.extend(state())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [diffusers_log.ERROR, transformers_log.ERROR, hub.logging.ERROR, False, False, before[-1]]
    assert state() == before


@pytest.mark.usefixtures("loud")
def test_what_the_user_switched_off_stays_off():
    hub.disable_progress_bars()
    try:
        with quiet():
            assert hub.are_progress_bars_disabled()
        assert hub.are_progress_bars_disabled()
    finally:
        hub.enable_progress_bars()
