"""A host that also keeps what the folder wants."""

from comfyui_rollout.training.recorder import Recorder
from comfyui_rollout.training.run_folder import RunFolder, read_metrics
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
    assert host.told == [("progress", "4", 1, 2), ("finish", "4"), ("check_interrupted",)]
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
