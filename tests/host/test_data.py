"""ComfyUI's own nodes for data sets, in ComfyUI: what they give is trained on, and is the same by every way."""

import shutil

import pytest
from comfy_process import all_of, metrics, read_json
from hosted_graphs import training, without
from PIL import Image

AFTER = ("samples", "trained", "save", "save_theirs", "positive", "empty", "sampler", "decode", "show")


def link(node, slot=0):
    return [node, slot]


@pytest.fixture(scope="module")
def folder(comfy, photos):
    """A folder below ComfyUI's input, with photographs of two sizes and their captions; sides that all ways keep."""
    place = comfy.base / "input" / "two sizes"
    shutil.copytree(photos / "pagoda", place)
    for path in sorted(place.glob("*.jpg")):
        with Image.open(path) as picture:
            picture.resize((192, 128) if picture.width > picture.height else (128, 128)).save(path)
    return place.name


def read(folder):
    """Images of two sizes, and texts, by ComfyUI's nodes."""
    return {
        "pictures": {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": folder}},
        "small": {
            "class_type": "ResizeImagesByShorterEdge",
            "inputs": {"images": link("pictures"), "shorter_edge": 64},
        },
        "shuffled": {
            "class_type": "ShuffleImageTextDataset",
            "inputs": {"images": link("small"), "texts": link("pictures", 1), "seed": 1},
        },
    }


def made(folder):
    """Latents and conditionings of them."""
    inputs = {"images": link("shuffled"), "texts": link("shuffled", 1), "vae": link("loader", 2)}
    inputs["clip"] = link("loader", 1)
    return read(folder) | {"made": {"class_type": "MakeTrainingDataset", "inputs": inputs}}


def latents(source):
    return {"latents": link(source), "conditioning": link(source, 1), "pipeline": link("model", 2)}


def trained(comfy, name, data, nodes, given, family="flux"):
    """The metrics of a run on what these nodes give."""
    graph = without(training(family, data, step={"run_name": name, "sample_every": 0, "steps": 4}), *AFTER)
    del graph["step"]["inputs"]["samples"]
    graph["data"]["inputs"] |= {"batch_size": 2, **given}
    graph["data"]["inputs"].pop("masks", None)
    messages = comfy.run({**without(graph, "pictures"), **nodes})
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    (run,) = (comfy.output / "rollout").glob(f"{name}_*")
    assert read_json(run / "run.json")["status"] == "finished"
    return metrics(run)


@pytest.fixture(scope="module")
def by_latents(comfy, folder):
    """What is trained on Make Training Dataset's lists."""
    return trained(comfy, "make", "latents", made(folder), latents("made"))


def test_images_and_texts_of_a_folder(comfy, folder, by_latents):
    """Load Image-Text, resized and shuffled: encoded by us or by Make Training Dataset, they train the same.

    To rounding: our VAE's images are in -1..1.
    """
    given = {"images": link("shuffled"), "captions": link("shuffled", 1), "caption_dropout": 0.0}
    rows = trained(comfy, "images", "images", read(folder), given)
    assert rows == [pytest.approx(row, rel=1e-4) for row in by_latents]


def test_resolution_bucket(comfy, folder, by_latents):
    """Its batches, each of one size with a list of texts, are the items that went in."""
    bucket = {"class_type": "ResolutionBucket", "inputs": {"latents": link("made"), "conditioning": link("made", 1)}}
    rows = trained(comfy, "bucket", "latents", {**made(folder), "bucket": bucket}, latents("bucket"))
    assert rows == by_latents


def test_a_text_for_each_batch(comfy, folder, by_latents):
    """Two batches of latents with one text each: every latent of a batch has its text."""
    nodes = {
        "first": {"class_type": "MakeImages", "inputs": {"count": 2, "oblong": False}},
        "batch": {"class_type": "ImageBatch", "inputs": {"image1": link("first"), "image2": link("first")}},
        "made": {
            "class_type": "MakeTrainingDataset",
            "inputs": {
                "images": link("batch"), "texts": link("first", 2), "vae": link("loader", 2), "clip": link("loader", 1)
            },
        },
    }  # fmt: skip
    assert len(trained(comfy, "pairs", "latents", nodes, latents("made"))) == 4


def test_a_saved_data_set(comfy, folder, by_latents):
    """Save Training Dataset and Load Training Dataset between them change nothing."""
    save = {"folder_name": "kept", "shard_size": 2, "latents": link("made"), "conditioning": link("made", 1)}
    loader = {"loader": training("flux")["loader"]}
    nodes = {**loader, **made(folder), "keep": {"class_type": "SaveTrainingDataset", "inputs": save}}
    assert all_of(comfy.run(nodes), "execution_success")
    load = {"loaded": {"class_type": "LoadTrainingDataset", "inputs": {"folder_name": "kept"}}}
    assert trained(comfy, "loaded", "latents", load, latents("loaded")) == by_latents
