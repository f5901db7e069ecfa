"""Pictures that a run keeps: by names that sort, and of recorded rollouts no more than a person looks at."""

from itertools import pairwise

import pytest
from comfyui_rollout.runs.pictures.kept import MOST_FILMS, KeptPictures, most_crowded
from PIL import Image


@pytest.fixture
def kept(tmp_path):
    return KeptPictures(tmp_path)


def test_pictures_are_kept_by_kind_node_and_step(kept):
    """Names sort by time, and the ids of nodes in subgraphs (7:3) make no trouble on any system."""
    picture = Image.new("RGB", (2, 2), "red")
    sample = kept.add("samples", "7:3", 250, picture)
    rollout = kept.add("rollout", "4", 50, picture)
    assert sample.relative_to(kept.folder).as_posix() == "samples/7-3_step_000250.png"
    assert rollout.relative_to(kept.folder).as_posix() == "rollouts/4_step_000050.png"
    with Image.open(sample) as again:
        assert again.getpixel((0, 0)) == (255, 0, 0)


def films(kept, node_id="4"):
    """The steps of the recorded rollouts that are kept; each is a sheet and its facts."""
    names = {path.name for path in (kept.folder / "rollouts").iterdir() if path.name.startswith(f"{node_id}_")}
    steps = sorted(int(name.split("_")[2]) for name in names if name.endswith(".json"))
    assert names == {f"{node_id}_step_{step:06d}_frames.{kind}" for step in steps for kind in ("json", "png")}
    return steps


def record(kept, steps, node_id="4"):
    for step in steps:
        kept.add_frames(node_id, step, Image.new("RGB", (2, 2)), {"step": step})


def test_recorded_rollouts_of_a_long_run_are_thinned(kept):
    """64 of them are kept, spread over the run within a factor of two, the first and the newest among them."""
    record(kept, [7], node_id="14")
    record(kept, range(0, 64 * 50, 50))
    assert films(kept) == list(range(0, 64 * 50, 50))
    record(kept, range(64 * 50, 250 * 50, 50))
    there = films(kept)
    gaps = [after - before for before, after in pairwise(there)]
    assert len(there) == MOST_FILMS == 64
    assert (there[0], there[-1]) == (0, 249 * 50)
    assert max(gaps) <= 2 * min(gaps[:-1])
    assert films(kept, "14") == [7]


def test_thinning_goes_on_in_a_folder_that_was_there_before(kept, tmp_path):
    """What is kept depends on the folder alone, so a resumed run thins like one that never stopped."""
    record(kept, range(100))
    (tmp_path / "other").mkdir()
    other = KeptPictures(tmp_path / "other")
    record(other, range(70))
    record(KeptPictures(other.folder), range(70, 100))
    assert films(kept) == films(other)


@pytest.mark.parametrize(
    ("moments", "place"), [([0, 1, 2, 3], 1), ([0, 2, 3, 4], 2), ([0, 2, 4, 5, 9], 2), ([0, 10, 11], 1)]
)
def test_the_most_crowded_moment_goes(moments, place):
    """The one whose neighbours are closest, the oldest of several, and never the first or the last."""
    assert most_crowded(moments) == place
