"""The index of a shard: made once, of torn shards too."""

import shutil
import tarfile

import pytest
from comfyui_rollout.data.shards.index import index_of
from comfyui_rollout.data.shards.source import shards_at


def test_an_index_is_made_once(tars, read, tmp_path, monkeypatch):
    """A second start reads no tar; a shard more costs that shard; one that was written anew is read again."""
    from comfyui_rollout.data.shards import index

    looked, through = [], index.read_through
    monkeypatch.setattr(
        index, "read_through", lambda shards, number, stopped: looked.append(number) or through(shards, number, stopped)
    )
    place, kept = tmp_path / "copy", tmp_path / "index"
    shutil.copytree(tars, place)
    (place / "data-003.tar").rename(tmp_path / "later.tar")
    first = read(place, kept)
    assert sorted(looked) == [0, 1, 2]
    assert (read(place, kept).index.rows == first.index.rows).all()
    assert sorted(looked) == [0, 1, 2]
    (tmp_path / "later.tar").rename(place / "data-003.tar")
    assert len(read(place, kept).index) == 10
    assert sorted(looked) == [0, 1, 2, 3]
    next(kept.iterdir()).write_bytes(b"damaged")
    shutil.copy(place / "data-003.tar", place / "data-001.tar")
    read(place, kept)
    assert len(looked) in (5, 6)  # the damaged file may be of the shard that changed


def test_an_indexing_that_is_stopped_goes_on(tars, read, tmp_path):
    """What was read is kept."""

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_of(shards_at(str(tars)), tmp_path, stop)
    assert len(list(tmp_path.glob("*.npz"))) >= 2
    assert len(read(tars, tmp_path).index) == 10


def test_a_torn_shard_gives_what_is_whole(tars, read, tmp_path, caplog):
    """Wherever it was cut off: the samples before, and a line that says so."""
    data = (tars / "data-000.tar").read_bytes()
    whole = read(tars / "data-000.tar")
    third = int(whole.index.rows["start"][2])
    with tarfile.open(tars / "data-000.tar") as file:
        last = file.getmembers()[-1]
        end = last.offset_data + 512 * -(-last.size // 512)
    for length in (third + 100, third - 512, third - 700, end):
        (tmp_path / "torn.tar").write_bytes(data[:length])
        caplog.clear()
        assert len(read(tmp_path / "torn.tar").index) in (2, 3)
        assert "no whole tar file" in caplog.text
    garbled = bytearray(data)
    garbled[third - 512 : third - 400] = b"?" * 112
    (tmp_path / "torn.tar").write_bytes(garbled)
    assert len(read(tmp_path / "torn.tar").index) == 2
