"""Files are whole or not there, whatever happens while they are written."""

import pytest
from comfyui_rollout.files import whole
from comfyui_rollout.files.whole import free_folder, whole_or_nothing, writable, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    """A reader never sees half a file, and nothing else is left beside it."""
    with whole_or_nothing(tmp_path / "new" / "a.txt") as unfinished:
        unfinished.write_text("half")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("stop", [OSError("disk full"), KeyboardInterrupt()])
def test_a_broken_write_leaves_what_was_there(tmp_path, stop):
    """Full disk or ctrl-C: the old file stays, the new one does not appear."""
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(stop)), whole_or_nothing(tmp_path / "a.txt") as unfinished:  # noqa: PT012
        unfinished.write_text("half")
        raise stop
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    """A newer model does not mix with files of the older one."""
    for content in ("old", "new"):
        with whole_or_nothing(tmp_path / "model") as unfinished:
            unfinished.mkdir()
            (unfinished / f"{content}.txt").write_text(content)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new.txt"]


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    """A virus scanner or a network drive may hold it: neither the old model nor its place is lost."""
    with whole_or_nothing(tmp_path / "model") as unfinished:
        unfinished.mkdir()
        (unfinished / "old.txt").touch()

    def held(source, target):
        raise PermissionError("held by another program")

    monkeypatch.setattr(whole.os, "replace", held)
    with pytest.raises(PermissionError), whole_or_nothing(tmp_path / "model") as unfinished:
        unfinished.mkdir()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old.txt"]


def test_text_is_utf8(tmp_path):
    """Captions and prompts in any language survive on every system."""
    write_text(tmp_path / "a.txt", "café 猫")
    assert (tmp_path / "a.txt").read_bytes().decode("utf-8") == "café 猫"


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path, inside):
    """Whatever is written there: model, run or samples."""
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(ValueError, match=r"^cannot write in '.*taken.*' \(.+\): choose another output folder$"):
        writable(tmp_path / "taken" / inside)
    assert names(tmp_path) == ["taken"]


def test_the_next_free_number_is_taken(tmp_path):
    """Nothing is ever overwritten."""
    assert free_folder(tmp_path, "run").name == "run_00001"
    for _ in range(2):
        free_folder(tmp_path, "run").mkdir()
    (tmp_path / "run_00003").touch()
    assert free_folder(tmp_path, "run").name == "run_00004"
    assert free_folder(tmp_path, "other").name == "other_00001"
