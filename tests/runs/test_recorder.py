"""A host that also keeps what the folder wants."""

import pytest
from comfyui_rollout.hosts.host import Host
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.runs.recorder import Recorder
from comfyui_rollout.runs.run_folder import RunFolder
from PIL import Image


def recorder(host, tmp_path):
    return Recorder(host, RunFolder.create(tmp_path, "run", {}))


def test_everything_is_passed_on(listener, tmp_path):
    """Recording must not hide anything from the host, the interrupt least of all."""
    host = listener()
    record = recorder(host, tmp_path)
    record.progress("4", 1, 2)
    record.finish("4")
    record.check_interrupted()
    record.make_room()
    assert host.told == [("progress", "4", 1, 2), ("finish", "4"), ("check_interrupted",), ("make_room",)]
    assert (record.output_folder, record.device) == (host.output_folder, host.device)


def test_metrics_go_to_both(listener, tmp_path):
    """The file and the live chart show the same rows."""
    host, rows = listener(), [{"step": 0, "loss": 1.0}]
    record = recorder(host, tmp_path)
    record.metrics("9", rows)
    assert host.told == [("metrics", "9", rows)]
    assert read_metrics(record.folder.folder) == rows


def test_a_picture_goes_where_it_is_wanted(listener, tmp_path):
    """The folder keeps rollouts without a listener; the listener sees previews that the folder does not keep."""
    host, picture = listener("noisy"), Image.new("RGB", (2, 2))
    record = recorder(host, tmp_path)
    assert record.wants("noisy")
    assert record.wants("rollout")
    assert not record.wants("other")
    for kind in ("noisy", "rollout"):
        record.show("4", kind, 7, picture)
    assert host.told == [("show", "4", "noisy", 7, picture)]
    assert [path.name for path in record.folder.folder.rglob("*.png")] == ["4_step_000007.png"]


@pytest.mark.parametrize(("count", "told"), [(0, 0), (3, 3), (2000, 2000), (2001, 1001)])
def test_a_resumed_run_tells_what_was_before(listener, tmp_path, count, told):
    """The curve that somebody watches begins where the run began; of a long one it gets a part."""
    host = listener()
    record = recorder(host, tmp_path)
    record.folder.add_metrics([{"step": step} for step in range(count)])
    record.resumed("9", "goes on")
    assert host.told[0] == ("resumed", "9", "goes on")
    rows = [row for event in host.told[1:] for row in event[2]]
    assert len(rows) == told
    assert not rows or rows[0] == {"step": 0}
    assert len(read_metrics(record.folder.folder)) == count


def test_frames_of_a_run_elsewhere_cannot_be_fetched(tmp_path):
    """A run that is resumed by a full path may lie where no browser may look: it is kept, and nobody is told where."""
    host = Host()
    host.output_folder, told = tmp_path / "output", []
    host.frames = lambda *event: told.append(event[-1])
    for place in (tmp_path / "output" / "rollout", tmp_path / "elsewhere"):
        record = Recorder(host, RunFolder.create(place, "run", {}))
        record.frames("6", 0, Image.new("RGB", (2, 2)), {})
        assert (record.folder.folder / "rollouts" / "6_step_000000_frames.png").is_file()
    assert [files and files["subfolder"] for files in told] == ["rollout/run_00001/rollouts", None]
