"""What several threads make comes as one would make it: the same things, in the same order, with the same errors."""

import threading
import time

import pytest
from comfyui_rollout.data.reading import ahead as module
from comfyui_rollout.data.reading.ahead import ahead, together


def test_the_order_is_that_of_the_things():
    """Also where the first ones take longest."""

    def slowly(number):
        time.sleep(0.02 / (number + 1))
        return number

    with ahead(slowly, range(20), workers=4) as made:
        assert list(made) == list(range(20))


def test_several_are_made_at_once():
    """Each waits for the others: one thread alone would wait for ever."""
    barrier = threading.Barrier(3, timeout=10)
    with ahead(lambda number: barrier.wait() >= 0 and number, range(6), workers=3) as made:
        assert list(made) == list(range(6))


def test_the_first_error_is_the_first_things():
    """What one thread would have met first is raised, after all that comes before it, though others fail sooner."""

    def make(number):
        if number == 3:
            time.sleep(0.05)
        if number >= 3:
            raise ValueError(f"cannot read {number}.png")
        return number

    seen = []
    with pytest.raises(ValueError, match=r"^cannot read 3\.png$"), ahead(make, range(9), workers=4) as made:
        seen += made
    assert seen == [0, 1, 2]


def test_no_more_is_made_than_is_soon_asked_for():
    """A folder of large pictures does not fill the memory while the encoder is at work; who leaves starts no more."""
    begun = []
    with ahead(lambda number: begun.append(number), range(1000), workers=2) as made:
        next(made)
        time.sleep(0.05)
        assert len(begun) <= 1 + 2 * 2
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollout-pictures")]


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_a_batch_is_the_same_on_every_machine(monkeypatch, cores):
    monkeypatch.setattr(module, "threads", lambda: cores)
    assert together(lambda number: number**2, range(9)) == [number**2 for number in range(9)]
    assert together(str, [1]) == ["1"]
    assert together(str, []) == []
    with pytest.raises(ZeroDivisionError, match="zero"):
        together(lambda number: 1 / number, [1, 2, 0, 4, "x"])
