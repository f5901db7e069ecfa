"""Files that are known by what they were made from."""

import pytest
import torch
from comfyui_rollout.data.encodings.cache import CHUNK, Cache, content_of, fingerprint, key_of


def test_names_differ_with_every_fact():
    """Also where their texts would run together."""
    facts = [("a", "b"), ("ab",), ("a", "b", ""), ("a", 1), ("a", "1"), ("a", (1, 2)), ("a", 1, 2), ("a", 1.0)]
    assert len({key_of(*fact) for fact in facts}) == len(facts)
    assert key_of("a", (1, 2)) == key_of("a", (1, 2))


def test_content_is_all_bytes(tmp_path):
    """A copy is the same, one changed bit anywhere is another."""
    first, copy, other = (tmp_path / name for name in ("a", "b", "c"))
    whole = bytes(3 << 20)
    first.write_bytes(whole)
    copy.write_bytes(whole)
    other.write_bytes(whole[:-1] + b"\1")
    assert content_of(first) == content_of(copy) != content_of(other)


@pytest.mark.parametrize("size", [0, 10, CHUNK, 3 * CHUNK, 100 * CHUNK])
def test_a_fingerprint_tells_weights_apart(tmp_path, size):
    """Another length, header or training, without reading gigabytes; a copy has the same."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(256, (size,), generator=generator, dtype=torch.uint8) for _ in range(2))
    found = []
    for number, content in enumerate((first, first, second, torch.cat([first, first[:1]]) if size else b"\1")):
        path = tmp_path / str(number)
        path.write_bytes(content if isinstance(content, bytes) else content.numpy().tobytes())
        found.append(fingerprint(path))
    assert found[0] == found[1]
    assert found[0] != found[3]
    assert (found[0] != found[2]) == (size > 0)


def test_what_was_saved_comes_back(tmp_path):
    """In its own dtype, all of it or one tensor."""
    cache = Cache(tmp_path / "made" / "here")
    tensors = {"text": torch.ones(2, 3, dtype=torch.bfloat16), "mask": torch.tensor([True, False])}
    assert not cache.has("text", "a")
    cache.save("text", "a", tensors)
    assert cache.has("text", "a")
    assert not cache.has("latents", "a")
    loaded = cache.load("text", "a")
    assert {name: value.dtype for name, value in loaded.items()} == {"text": torch.bfloat16, "mask": torch.bool}
    assert torch.equal(cache.load_one("text", "a", "mask"), tensors["mask"])


def test_a_damaged_file_is_named_and_removed(tmp_path, caplog):
    """Cut short by a full disk or a crash: it is made again, and the log says why."""
    cache = Cache(tmp_path)
    cache.save("text", "a", {"text": torch.ones(100)})
    path = cache.path("text", "a")
    path.write_bytes(path.read_bytes()[:-8])
    assert not cache.has("text", "a")
    assert not path.exists()
    assert "a.safetensors is damaged or cut short" in caplog.text


def test_a_file_that_is_gone_says_what_to_do(tmp_path):
    """Somebody emptied the cache while a run was using it."""
    for load in (lambda: Cache(tmp_path).load("text", "a"), lambda: Cache(tmp_path).load_one("text", "a", "text")):
        with pytest.raises(ValueError, match="gone from the cache: run Encode Dataset again"):
            load()


def test_a_cache_that_is_only_asked_makes_no_folder(tmp_path):
    """Looking leaves no trace."""
    assert not Cache(tmp_path / "nowhere").has("text", "a")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_damaged_since_says_what_to_do(tmp_path):
    """The line names it, in the middle of a run."""
    cache = Cache(tmp_path)
    cache.save("text", "a", {"text": torch.ones(100)})
    cache.path("text", "a").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged .*: run Encode Dataset again"):
        cache.load_one("text", "a", "text")
