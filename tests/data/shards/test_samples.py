"""Samples in a shard, whoever wrote them."""

from contextlib import ExitStack


def test_the_library_reads_the_same_samples(tars, read):
    """WebDataset is the oracle of what a sample is, and in which order they come."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with ExitStack() as stack:
        opened = [
            {"url": str(path), "stream": stack.enter_context(path.open("rb"))} for path in sorted(tars.glob("*.tar"))
        ]
        samples = list(group_by_keys(tar_file_expander(opened)))
    shards = read(tars)
    assert shards.read(range(10)) == [sample["png"] for sample in samples]
    assert [shards.item(number).label for number in range(10)] == [int(sample["cls"]) for sample in samples]
    assert [shards.index.path(number).name for number in range(10)] == [
        sample["__key__"].split("/")[-1] + ".png" for sample in samples
    ]


def test_odd_samples(tar, read, caplog):
    """Two pictures are one item, of the plain name; hidden files and strangers are none; a damaged one is left out."""
    shards = read(
        tar(
            {
                "a.mask.png": True,
                "a.png": True,
                "a.json": b'{"no": "caption"}',
                "._b.png": True,
                "b.npy": b"what",
                "c.png": b"damaged",
                "c.txt": b"lost with it",
                "d.jpg": True,
                "d.txt": b"",
                "d.caption": b"weaker",
                "e.f.png": True,
                "e.txt": b"\xff\xfe\x00",
                "__meta__.png": True,
            }
        ),
        default_caption="instead",
    )
    assert [shards.index.path(number).name for number in range(len(shards.index))] == ["a.png", "d.jpg"]
    assert shards.captions([0, 1]) == ["instead", ""]
    assert (shards.left_out, shards.index.found[0].others) == (2, 1)
    assert "c.png" in caplog.text
    assert shards.info.classes == ()
    assert "a.png has no class" in shards.info.without_classes or "hold no classes" in shards.info.without_classes


def test_long_names_are_found(tar, read):
    """A name of more than 100 bytes is in headers of its own."""
    name = "x" * 150
    assert read(tar({f"{name}/{name}.png": True})).index.path(0).name == f"{name}.png"
