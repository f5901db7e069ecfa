"""Data sets: made, filled, listed and measured."""

from pathlib import Path

import pytest
from comfyui_rollout.data.reading.folder import PICTURES, WITH_PLUGIN, survey
from comfyui_rollout.server.pictures import datasets
from PIL import Image
from uploads import entries, picture, put


@pytest.fixture
def sets(folders):
    return datasets.Datasets(folders.datasets)


def test_a_data_set_is_made_filled_and_listed(serve, folders):
    """A taken name gets a number; what is there is the same, another file of the name is refused and stays."""

    async def check(client, studio):
        names = [(await (await client.post("/rollout/datasets", json={"name": "my cat"})).json())["name"] for _ in "ab"]
        assert names == ["my cat", "my cat 2"]
        assert await put(client, "my cat", "10.png", picture()) == (200, "added")
        assert await put(client, "my cat", "2.jpg", picture(kind="JPEG", size=(100, 700))) == (200, "added")
        assert await put(client, "my cat", "sub/2.png", picture()) == (200, "added")
        assert await put(client, "my cat", "10.txt", "a red cat\n") == (200, "added")
        assert await put(client, "my cat", "10.png", picture()) == (200, "same")
        assert (await put(client, "my cat", "10.png", picture("blue")))[0] == 409
        found = await entries(client, "my cat")
        assert list(found) == ["2.jpg", "10.png", "sub/2.png"]
        assert found["10.png"].pop("version")
        facts = {"bytes": len(picture()), "width": 300, "height": 300, "caption": "a red cat", "flags": []}
        assert found["10.png"] == {"picture": "10.png", **facts}
        assert found["2.jpg"]["flags"] == ["small", "oblong", "no caption"]
        assert found["sub/2.png"]["flags"] == ["no caption", "duplicate"]
        listed = (await (await client.get("/rollout/datasets")).json())["datasets"]
        assert [(item["name"], item["pictures"], item["first"]) for item in listed] == [
            ("my cat", 3, ["2.jpg"]), ("my cat 2", 0, []),
        ]  # fmt: skip
        assert not list(folders.datasets.rglob("*.part"))

    serve(check)


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "", "x" * 200, "con", "a\0b", "a ", "a.", "..%2f..", "a:b"])
def test_names_that_lead_elsewhere_make_nothing(serve, folders, name):
    """Not as the name of a data set, and not as that of a file in one."""

    async def check(client, studio):
        before = sorted(folders.input.rglob("*")) if folders.input.exists() else []
        assert (await client.post("/rollout/datasets", json={"name": name})).status in (400, 403)
        assert (sorted(folders.input.rglob("*")) if folders.input.exists() else []) == before

    serve(check)


def test_ten_thousand_pictures_are_measured_once(sets, folders, monkeypatch):
    """A second look reads no picture again; a changed one is read."""
    folder = folders.datasets / "a"
    folder.mkdir(parents=True)
    for number in range(50):
        (folder / f"{number}.png").write_bytes(picture() + b"\0" * number)
    sets.entries("a")
    read = []
    monkeypatch.setattr(datasets, "upright_size", lambda path: read.append(path.name) or (1, 1))
    sets.entries("a")
    assert read == []
    (folder / "7.png").write_bytes(picture("blue") + b"\0" * 999)
    sets.entries("a")
    assert read == ["7.png"]


def test_masks_and_what_is_left_out_are_told(serve, folders):
    """As the trainer reads the folder: a mask is no picture, and every file that is not trained has its reason."""
    place = folders.datasets / "cats"
    place.mkdir(parents=True)
    for name in ("a.png", "a-masklabel.png", "b.png", "c-condlabel.png", "lost-masklabel.png"):
        Image.new("RGB", (300, 300), "red" if name == "b.png" else "blue").save(place / name)
    (place / "raw.cr2").write_bytes(b"x")
    said = survey(place)
    assert said["masks"] == {"a.png": "a-masklabel.png"}
    assert said["beside"] == ["a-masklabel.png", "c-condlabel.png", "lost-masklabel.png"]
    assert len(said["left_out"]) == 3
    sets = datasets.Datasets(folders.datasets, survey)
    entries, left_out = sets.shown("cats")
    assert [(entry["picture"], entry.get("mask")) for entry in entries] == [
        ("a.png", "a-masklabel.png"),
        ("b.png", None),
    ]
    assert left_out == said["left_out"]


def test_a_duplicate_says_of_what(folders):
    """The first by name stays, the others point to it."""
    place = folders.datasets / "cats"
    place.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (300, 300)).save(place / name)
    first, second = datasets.Datasets(folders.datasets).entries("cats")
    assert "same_as" not in first
    assert (second["flags"][-1], second["same_as"]) == ("duplicate", "a.png")


def test_all_that_is_trained_is_shown():
    """A picture that the trainer takes and the Data tab hides would be trained without its caption being seen."""
    assert set(datasets.PICTURES) == PICTURES
    assert set(datasets.WITH_PLUGIN) == WITH_PLUGIN


def test_a_picture_that_may_not_be_read_hides_no_other(sets, folders, monkeypatch):
    """It is shown as one that cannot be read, also beside a file of the same size."""
    place = folders.datasets / "a"
    place.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (place / name).write_bytes(picture())
    stat = Path.stat

    def refused(path, **options):
        if path.stem == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    flags = {entry["picture"]: entry["flags"] for entry in sets.entries("a")}
    assert flags == {"a.png": ["no caption"], "b.png": ["unreadable", "no caption"]}
