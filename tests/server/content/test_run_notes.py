"""Tags and notes of people on runs: kept in the run's folder, whole, and never lost behind somebody's back."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from comfyui_rollout.runs.run_folder import RunFolder, facts_in
from comfyui_rollout.server.content.run_notes import FILE, Conflict, clean, read_notes, write_notes

NONE = {"tags": [], "note": ""}
SOME = {"tags": ["good", "चेहरा"], "note": "the mouth is soft\nrank 32 next"}


@pytest.fixture
def run(folders):
    return RunFolder.create(folders.runs, "cats", {"steps": 3})


def test_notes_are_kept_listed_and_survive_a_resume(serve, run):
    """The run's own files are not touched by them, nor they by it; they are no sign of life of the training."""
    run.update(status="finished")

    async def check(client, studio):
        before = (await (await client.get("/rollout/runs")).json())["runs"][0]
        assert {name: before[name] for name in NONE} == NONE
        reply = await client.put("/rollout/runs/cats_00001/notes", json={**SOME, "was": NONE})
        assert await reply.json() == SOME
        after = (await (await client.get("/rollout/runs")).json())["runs"][0]
        assert after == {**before, **SOME}

    serve(check)
    run.go_on(0, {"steps": 5})
    assert read_notes(run.folder) == SOME
    assert facts_in(run.folder)["steps"] == 5
    assert [path for path in run.folder.iterdir() if path.name.startswith(".")] == []


def test_of_two_editors_none_loses_silently(serve, run):
    """The second one is told what the first wrote; nothing is written over."""

    async def check(client, studio):
        async def put(notes, was):
            reply = await client.put("/rollout/runs/cats_00001/notes", json={**notes, "was": was})
            return reply.status, await reply.json()

        assert await put(SOME, NONE) == (200, SOME)
        assert await put(SOME, NONE) == (200, SOME)  # the same edit, sent again
        status, told = await put({"tags": ["bad"], "note": ""}, NONE)
        assert (status, told["now"]) == (409, SOME)
        assert await put({"tags": ["bad"], "note": ""}, SOME) == (200, {"tags": ["bad"], "note": ""})

    serve(check)


def test_writing_at_once_gives_one_winner(run):
    """Whoever comes later sees another state than the one that was edited."""

    def write(number):
        try:
            return write_notes(run.folder, {"tags": [str(number)], "note": ""}, NONE)
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [told for told in pool.map(write, range(16)) if told]
    assert won == [read_notes(run.folder)]


@pytest.mark.parametrize(
    "body",
    [
        {"tags": "good", "note": ""},
        {"tags": [1], "note": ""},
        {"tags": [], "note": None},
        {"tags": [f"t{number}" for number in range(21)], "note": ""},
        {"tags": ["x" * 41], "note": ""},
        {"tags": [], "note": "x" * 4001},
        {"tags": [], "note": "", "was": 3},
        {},
    ],
)
def test_what_are_no_notes_is_refused(serve, run, body):
    """With one line; nothing is written."""

    async def check(client, studio):
        reply = await client.put("/rollout/runs/cats_00001/notes", json={"was": NONE, **body})
        assert reply.status == 400
        assert "\n" not in (await reply.json())["error"]
        assert (await client.put("/rollout/runs/..%2f/notes", json={**SOME, "was": NONE})).status == 403
        assert (await client.put("/rollout/runs/none/notes", json={**SOME, "was": NONE})).status == 404

    serve(check)
    assert not (run.folder / FILE).exists()


def test_only_what_can_be_seen_is_kept():
    """Control characters, turned writing, spaces at the ends, empty tags and those that are there twice go."""
    found = clean({"tags": ["Good", " soft\tface ", "good", "\u202e", "a\0b"], "note": " x \r\n\x1b[31my\n\n"})
    assert found == {"tags": ["Good", "soft face", "ab"], "note": "x\n[31my"}
    assert clean(found) == found


@pytest.mark.parametrize("content", ["{", "[]", '{"tags": 3, "note": ""}', "[" * 100_000, "x" * 70_000, "\udcff"])
def test_a_damaged_file_is_no_notes(run, content):
    """A run is listed whatever somebody has put into its folder."""
    (run.folder / FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_notes(run.folder) == NONE


def test_a_link_is_not_followed(run, tmp_path):
    """Neither read nor written through: the link itself is replaced."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(SOME))
    (run.folder / FILE).symlink_to(secret)
    assert read_notes(run.folder) == NONE
    write_notes(run.folder, {"tags": ["mine"], "note": ""}, NONE)
    assert json.loads(secret.read_text()) == SOME
    assert read_notes(run.folder)["tags"] == ["mine"]
