"""One rule for names, and every room asks it."""

import pytest
from comfyui_rollout.files.names import LONGEST_NAME, LONGEST_PART, trouble_with_name, trouble_with_part
from comfyui_rollout.nodes.inputs import plain_name
from comfyui_rollout.server.guard.inside import Outside, inside

NOT_PLAIN = [
    "", ".", "..", "a/b", "a\\b", "..\\x", "../x", "/etc", "C:", "C:x", "a:stream", "CON", "con", "Nul.txt", "aux .png",
    "COM1", "com¹.json", "LPT9", "conin$", "prn.tar.gz", "x.", "x ", "x...", "...", " ", "a\nb", "a\rb", "a\tb", "a\0b",
    "\x7f", "a\x85b", "a\u2028b", "a\u2029b", "\ud800", "x" * (LONGEST_PART + 1), "é" * 128, "x" * 5000,
]  # fmt: skip
UNWRITABLE = ["a?b", "a\u202egpj", "a*", "<a>", 'a"b', "a|b", "x" * (LONGEST_NAME + 1), "é" * (LONGEST_NAME // 2 + 1)]
PLAIN = [
    "rollout", "my run", "a.b", ".hidden", "CONSOLE", "com10", "nul_", "auxiliary.png", "Übung 2", "犬", "a-b_c",
    "100%", "x" * LONGEST_NAME, "it's (2)", "null", "com", "lpt",
]  # fmt: skip


@pytest.mark.parametrize("name", NOT_PLAIN, ids=repr)
def test_what_no_system_may_read(name, tmp_path):
    """The rule, a node's input and the server's way to a path refuse the same, in one line."""
    assert trouble_with_part(name)
    assert trouble_with_name(name)
    said = plain_name(name, "run")
    assert isinstance(said, str)
    assert said.isprintable()
    assert len(said) < 300
    if name not in ("a/b",):
        with pytest.raises(Outside):
            inside(tmp_path, name)


@pytest.mark.parametrize("name", UNWRITABLE, ids=repr)
def test_what_is_never_made(name, tmp_path):
    """Other systems could not write it: no new thing is called so, but what is there already can be reached."""
    assert trouble_with_name(name)
    assert isinstance(plain_name(name, "run"), str)
    assert inside(tmp_path, name).name == name


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name, tmp_path):
    """Whatever language, spaces and dots within, and words that only begin like a device."""
    assert trouble_with_name(name) is None
    assert trouble_with_part(name) is None
    assert plain_name(name, "run") is True
    assert inside(tmp_path, name).parent == tmp_path.resolve()
