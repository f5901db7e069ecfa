"""Shard Dataset, alone and in front of Encode Dataset."""

import tarfile

import numpy as np
import pytest
import torch
from comfyui_rollout import nodes
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """Four oblong pictures with captions, as files."""
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 255, (5, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 90)).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"picture {number}")
    return place


@pytest.fixture
def shards(photos, tmp_path):
    """The same in two tar files."""
    place = tmp_path / "shards"
    place.mkdir()
    for shard in range(2):
        with tarfile.open(place / f"{shard}.tar", "w") as tar:
            for path in sorted(photos.iterdir())[4 * shard : 4 * shard + 4]:
                tar.add(path, path.name)
    return place


def test_the_node_says_what_it_found_and_how_far_it_is(build, pull, shards, host):
    """On the node; progress shard by shard, and an index in the output folder."""
    found = build(nodes.ShardDataset, shards=str(shards), batch_size=3, size=64)
    assert found["ui"]["text"][0] == "4 images x 1 repeat / batch 3 = 2 steps per epoch"
    assert found["ui"]["text"][2:] == ["captions: 4 of 4"]
    assert ("progress", "RolloutShardDataset", 2, 2) in host.told
    assert len(list((host.output_folder / "index" / "shards").iterdir())) == 2
    batch, _ = pull(found["result"][0])
    assert batch.latents.shape == (3, 3, 64, 64)
    text = build(nodes.ShardDataset, shards=str(shards), batch_size=8, size=128, buckets=True)["ui"]["text"]
    assert text[3] == "buckets (height x width): 64x128: 4"
    assert "fewer images than the batch (8)" in text[-1]


def test_what_is_wrong_is_said_before_the_run(shards, tmp_path):
    """By the input; URLs are left to the run, and so is what a wire brings."""
    check = nodes.ShardDataset.VALIDATE_INPUTS
    assert check(shards=str(shards)) is True
    assert check(shards=None) is True
    assert check(shards="https://example.org/{000..999}.tar") is True
    assert check(shards=" ").startswith("shards: name")
    assert check(shards=str(tmp_path / "no.tar")).startswith("shards: there is no")


def test_a_shard_more_is_noticed(shards):
    """Inside ComfyUI the data set is made anew then, and only then."""
    changed = nodes.ShardDataset.IS_CHANGED
    before = changed(shards=str(shards), size=8)
    assert changed(shards=str(shards), size=64) == before
    (shards / "2.tar").write_bytes((shards / "1.tar").read_bytes())
    assert changed(shards=str(shards), size=8) != before


def test_encoded_as_a_folder_is(build, wire, pull, tiny_pipeline, photos, shards):
    """The same model, the same files: the same batch, to the bit; and what was encoded is said."""
    pipeline = build(nodes.LoadPretrained, path=str(tiny_pipeline("sd")), storage="fp32")["result"][2]
    options = {"batch_size": 2, "size": 128, "flip": True}
    folder = wire(nodes.ImageFolderDataset, folder=str(photos), **options)
    tars = wire(nodes.ShardDataset, shards=str(shards), **options)
    one, _ = pull(wire(nodes.EncodeDataset, dataset=folder, pipeline=pipeline))
    found = build(nodes.EncodeDataset, dataset=tars, pipeline=pipeline)
    assert found["ui"]["text"][-2].startswith("latents: 0 in the cache, 8 to encode")
    other, _ = pull(found["result"][0])
    assert torch.equal(one.latents, other.latents)
    assert one.captions == other.captions
    assert all(torch.equal(one.conditioning[name], other.conditioning[name]) for name in one.conditioning)
    again = build(nodes.EncodeDataset, dataset=tars, pipeline=pipeline)["ui"]["text"]
    assert again[-2:] == [
        "latents: 8 in the cache, 0 to encode (0 B)",
        "captions: of 4 images in the cache, of 0 to encode",
    ]
