"""Files are whole or not there, whatever happens while they are written."""

import os
from pathlib import Path

import pytest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from comfyui_rollout.files import whole
from comfyui_rollout.files.whole import leftovers, new_folder, reserved, tidy, whole_or_nothing, writable, write_text


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


def test_the_next_free_number_is_taken_by_making_it(tmp_path):
    """Nothing is ever overwritten, and two who ask at once have two folders."""
    assert [new_folder(tmp_path, "run").name for _ in range(2)] == ["run_00001", "run_00002"]
    (tmp_path / "run_00003").touch()
    assert new_folder(tmp_path, "run").name == "run_00004"
    assert new_folder(tmp_path, "other").name == "other_00001"


@pytest.mark.parametrize("ending", ["", ".bin"])
def test_a_reserved_place_is_nobody_elses(tmp_path, ending):
    """It is there from the start, is replaced by what is written, and goes again where nothing was."""
    with reserved(tmp_path, "a", ending) as first, reserved(tmp_path, "a", ending) as second:
        assert [first.name, second.name] == [f"a_00001{ending}", f"a_00002{ending}"]
        with whole_or_nothing(first) as unfinished:
            if ending:
                unfinished.write_text("content")
            else:
                unfinished.mkdir()
                (unfinished / "content").touch()
    assert names(tmp_path) == [f"a_00001{ending}"]


def interrupted(folder, *parts):
    """What a program leaves that was killed while it replaced the folder ``model``."""
    nearby = folder / ".model-abc_1234"
    for part in parts:
        (nearby / part).mkdir(parents=True)
        (nearby / part / f"{part}.txt").touch()
    return nearby


def test_a_folder_that_was_about_to_take_its_place_takes_it(tmp_path):
    """Killed between the two renames: nothing of that name is there, and the new one is whole."""
    nearby = interrupted(tmp_path, "model", "previous")
    assert leftovers(tmp_path) == [nearby]
    assert tidy(tmp_path) == [nearby]
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["model.txt"]


def test_half_of_a_folder_is_removed(tmp_path):
    """Killed while it was written; foreign folders that look alike stay, and so does what is too young."""
    nearby = interrupted(tmp_path, "model")
    (tmp_path / ".mine-12345678" / "notes").mkdir(parents=True)
    assert tidy(tmp_path, older_than=3600) == []
    assert tidy(tmp_path) == [nearby]
    assert names(tmp_path) == [".mine-12345678"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which file was flushed")
def test_what_is_named_is_on_the_disk(tmp_path, monkeypatch):
    """Each file and folder is flushed before it is named, and its name after that."""
    flushed = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda opened: (flushed.append(os.readlink(f"/proc/self/fd/{opened}")), real(opened))
    )
    with whole_or_nothing(tmp_path / "new" / "model") as unfinished:
        unfinished.mkdir()
        (unfinished / "a.txt").touch()
        assert flushed == [str(tmp_path)]
    places = [Path(place).name for place in flushed[1:]]
    assert places == ["a.txt", "model", "new"]


# As on Windows, of which this shows what our own code does there


@pytest.fixture
def windows(monkeypatch):
    """What the system does there as far as we ask it: folders cannot be opened, and a flush wants to write."""

    class System:
        """Ours, but for two calls; the library's own, as those of shutil, are left alone."""

        def __getattr__(self, name):
            return getattr(os, name)

        def open(self, path, flags):
            if Path(path).is_dir():
                raise PermissionError(13, "Permission denied")
            return os.open(path, flags)

        def fsync(self, number):
            assert fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR

    monkeypatch.setattr(whole, "WINDOWS", True)
    monkeypatch.setattr(whole, "os", System())


@pytest.mark.skipif(fcntl is None, reason="asks how a file was opened")
def test_files_are_flushed_as_windows_wants_it(windows, tmp_path):
    """No folder is opened, and a file that is flushed is open for writing."""
    write_text(tmp_path / "new" / "a.txt", "words")
    with whole_or_nothing(tmp_path / "model") as unfinished:
        unfinished.mkdir()
        write_text(unfinished / "weights", "numbers")
    assert (names(tmp_path / "new"), names(tmp_path / "model")) == (["a.txt"], ["weights"])


@pytest.mark.parametrize("busy", [1, 5])
def test_a_scanner_that_holds_a_file_is_waited_for(monkeypatch, tmp_path, busy):
    """A rename over an open file is refused there; it is asked again for two seconds."""
    monkeypatch.setattr(whole, "WINDOWS", True)
    asked, replace = [], os.replace

    def held(source, target):
        asked.append(target)
        if len(asked) <= busy:
            raise PermissionError(13, "The process cannot access the file")
        replace(source, target)

    monkeypatch.setattr(whole.os, "replace", held)
    write_text(tmp_path / "a.txt", "new")
    assert (len(asked), (tmp_path / "a.txt").read_text(), names(tmp_path)) == (busy + 1, "new", ["a.txt"])


def test_a_scanner_that_never_lets_go_leaves_the_old_file(monkeypatch, tmp_path):
    """With an error, and nothing beside it."""
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(whole, "WINDOWS", True)
    monkeypatch.setattr(whole, "PATIENCE", 0.1)

    def held(source, target):
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(whole.os, "replace", held)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a.txt", "new")
    assert ((tmp_path / "a.txt").read_text(), names(tmp_path)) == ("old", ["a.txt"])


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_name_that_is_taken_stays_whose_it_is(monkeypatch, tmp_path, links):
    """Without overwriting; also on FAT, which has no hard links."""
    if not links:
        monkeypatch.setattr(whole.os, "link", lambda source, target: (_ for _ in ()).throw(OSError(1, "no links")))
    whole.write_bytes(tmp_path / "a", b"mine", overwrite=False)
    with pytest.raises(FileExistsError):
        whole.write_bytes(tmp_path / "a", b"yours", overwrite=False)
    assert ((tmp_path / "a").read_bytes(), names(tmp_path)) == (b"mine", ["a"])


def test_text_has_the_same_bytes_on_every_system(tmp_path):
    """Windows would write two letters for the end of a line."""
    write_text(tmp_path / "a.txt", "one\ntwo\n")
    assert (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"
