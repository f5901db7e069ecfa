"""A file that is away for a second ends no run."""

import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.reading import patience
from comfyui_rollout.data.reading.patience import MOST_MISSING, PatientReader

AWAY = OSError("the network name cannot be found")


@pytest.fixture
def flaky(numbered, monkeypatch):
    """``flaky({item: times})``: a data set whose items cannot be read so often; nobody really waits."""
    waited = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)

    def make(away, error=AWAY, count=100):
        dataset = numbered(count)
        read = dataset.batch

        def batch(items, generators):
            for item in items:
                if away.get(item, 0) > 0:
                    away[item] -= 1
                    raise ValueError(f"cannot read {item}") from error
            return read(items, generators)

        dataset.batch = batch
        return PatientReader(dataset), waited

    return make


def values(reader, items):
    batch = reader.batch(items, ItemGenerators(1, "data", 0, len(items)))
    return batch.latents.flatten().tolist(), batch.conditioning["draw"]


def test_a_file_that_is_away_for_a_second_is_tried_again(flaky, numbered):
    """The batch is then the very same, draws included."""
    reader, waited = flaky({5: 2})
    found, draws = values(reader, [4, 5, 6])
    wanted, same = values(numbered(100), [4, 5, 6])
    assert found == wanted
    assert torch.equal(draws, same)
    assert waited == [0.5, 1.0]


def test_a_file_that_stays_away_is_left_out_and_named(flaky, caplog):
    """Another item of its batch is in its place."""
    reader, _ = flaky({5: 1000})
    assert values(reader, [4, 5, 6])[0] == [4.0, 6.0, 6.0]
    assert caplog.messages == ["left out, for it cannot be read: item 5: cannot read 5"]


def test_there_is_a_limit(flaky):
    """A whole folder that is gone ends the run, with its error."""
    reader, _ = flaky(dict.fromkeys(range(1, 100), 1000))
    for item in range(1, MOST_MISSING + 1):
        reader.batch([0, item], ItemGenerators(1, "data", 0, 2))
    with pytest.raises(ValueError, match="cannot read"):
        reader.batch([0, MOST_MISSING + 1], ItemGenerators(1, "data", 0, 2))
    assert len(reader.missing) == MOST_MISSING + 1
    with pytest.raises(ValueError, match="cannot read 7"):
        flaky({7: 1000})[0].batch([7], ItemGenerators(1, "data", 0, 1))


def test_other_errors_are_not_tried_again(flaky):
    """A fault of a file's content stays one."""
    reader, waited = flaky({5: 1000}, error=RuntimeError("bad pixels"))
    with pytest.raises(ValueError, match="cannot read 5"):
        values(reader, [5])
    assert waited == []
