"""What was listed and is gone when it is looked at is left out: a run that writes never breaks who looks."""

import os

from comfyui_rollout.files.listed import newest_first, still_there


def test_files_gone_since_they_were_listed(tmp_path):
    paths = [tmp_path / name for name in ("a", "gone", "b")]
    for path in (paths[0], paths[2]):
        path.write_text(path.name)
    assert [(path.name, facts.st_size) for path, facts in still_there(paths)] == [("a", 1), ("b", 1)]


def test_newest_first(tmp_path):
    paths = [tmp_path / name for name in ("old", "gone", "new")]
    for moment, path in ((1, paths[0]), (2, paths[2])):
        path.touch()
        os.utime(path, (moment, moment))
    assert newest_first(paths) == [tmp_path / "new", tmp_path / "old"]
