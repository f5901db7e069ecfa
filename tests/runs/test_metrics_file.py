"""metrics.jsonl: whole lines, whatever happens to the disk and to the program."""

from pathlib import Path

import pytest
from comfyui_rollout.runs.metrics_file import MetricsFile, read_metrics


@pytest.fixture
def file(tmp_path):
    return MetricsFile(tmp_path)


def losses(file):
    return [row["loss"] for row in read_metrics(file.folder)]


def test_it_grows_line_by_line(file):
    """Each line is JSON of its own, so a run that is still going can be read."""
    file.add([{"step": 0, "loss": 1.0}])
    file.add([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert losses(file) == [1.0, 0.5, 0.25]
    assert len(file.path.read_text().splitlines()) == 3


def test_no_metrics_are_no_error(tmp_path):
    """A run that was stopped before its first step has none."""
    assert read_metrics(tmp_path) == []


def test_a_line_that_a_crash_cut_short_does_not_count(file):
    file.add([{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}])
    file.path.write_bytes(file.path.read_bytes()[:-3])
    assert losses(file) == [1.0]


def test_what_had_no_room_is_written_with_the_next_line(file, monkeypatch):
    """And of a line that was half written on the full disk, nothing is left."""
    file.add([{"step": 0, "loss": 1.0}])
    open_it = Path.open

    def on_a_full_disk(path, *arguments, **options):
        opened = open_it(path, *arguments, **options)

        def half(lines):
            opened.write(lines[0][:9])
            raise OSError("no space left")

        opened.writelines = half
        return opened

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", on_a_full_disk)
        with pytest.raises(OSError, match="no space left"):
            file.add([{"step": 1, "loss": 0.5}])
    assert len(file.path.read_text().splitlines()) == 1
    file.add([{"step": 2, "loss": 0.25}])
    assert losses(file) == [1.0, 0.5, 0.25]


def test_going_back_drops_what_came_later(file):
    """A resumed run writes these steps once more."""
    file.add([{"step": step, "loss": float(step)} for step in range(5)])
    file.go_back(3)
    assert losses(file) == [0.0, 1.0, 2.0]
