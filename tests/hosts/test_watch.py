"""A process that waits for another in vain ends, and says so."""

import os
import time

import pytest
from together import Hung, together


def wait_for_ever():
    if os.environ["RANK"] == "1":
        time.sleep(60)


def test_the_watchdog_barks():
    """The test of the test."""
    with pytest.raises(Hung, match=r"processes \[1\] still wait"):
        together(2, wait_for_ever, watchdog=1)
