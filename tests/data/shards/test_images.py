"""Shards as a data set: what a folder of the same files gives, whoever wrote them and wherever they lie."""

import gzip
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators, Loader, next_batch, plan_batch
from comfyui_rollout.data.mixture import Mixture
from comfyui_rollout.data.names import name_of
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.shards.images import ShardImages
from comfyui_rollout.data.shards.index import index_of
from comfyui_rollout.data.shards.source import shards_at
from comfyui_rollout.diffusion import seeds
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.models.families import UNet
from comfyui_rollout.nodes.rollouts.loss import DiffusionLoss
from comfyui_rollout.nodes.rollouts.schedule import NoisyBatch
from comfyui_rollout.runs.fit import fit
from comfyui_rollout.runs.looks import Tell
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import Stream
from shard_encoders import same_batches
from together import together

OPTIONS = (
    {},
    {"crop": "random", "flip": True, "color": "L", "repeats": 2, "default_caption": "a photo"},
    {"size": 128, "buckets": True, "flip": True, "crop": "random", "upscale": False, "loss_weight": 0.5},
    {"size": 128, "buckets": True, "max_aspect_ratio": 1.5},
)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_files_give_the_same_batches(folder, tars, read, options):
    """Orders, groups, cuts, flips, captions and classes: to the bit those of the folder."""
    images, shards = ImageFolder(folder, **{"size": 64, **options}), read(tars, **options)
    assert shards.info.count == images.info.count
    assert shards.info.size == images.info.size
    assert [(group.name, tuple(group.items), group.count, group.weight) for group in shards.info.groups] == [
        (group.name, tuple(group.items), group.count, group.weight) for group in images.info.groups
    ]
    one, other = Loader(images, 3, 0, "data"), Loader(shards, 3, 0, "data")
    for index in range(8):
        same_batches(one.batch(index), other.batch(index))


def test_a_run_that_goes_on_sees_the_same_batches(tars, read):
    """From any step: a batch is a function of its number, also where the loader remembers the order of an epoch."""
    shards = read(tars, size=128, buckets=True, crop="random")
    run = Loader(shards, 3, 5, "data")
    seen = [run.batch(index) for index in range(9)]
    for start in range(0, 9, 2):
        resumed = Loader(shards, 3, 5, "data")
        for index in range(start, 9):
            same_batches(resumed.batch(index), seen[index])


def trained(tars, folder, size, steps, resume=None):
    """The weights after a training on shards, in float64, and the losses of its steps."""
    torch.set_default_dtype(torch.float64)
    images = ShardImages(index_of(shards_at(str(tars)), None), size=16, crop="random", flip=True)
    with seeds.global_seed(0):
        live = UNet.create(channels=3, size=16, classes=0, width=8, depth=1)
    live.network.double()

    def batch(step, dataset, batch_size):
        found = next_batch(step, dataset, batch_size)
        return replace(found, latents=found.latents.double())

    data = Stream(batch, {"dataset": images, "batch_size": size}, "1", "Shard Dataset", about=images.info)
    about = SimpleNamespace(classes=0, null_class=False, pretrained=None)
    model = Stream(lambda step: live, {}, "4", "Model", about=about)
    noisy = NoisyBatch().build(unique_id="5", dataset=data, schedule=FlowMatching())[0]
    loss = DiffusionLoss().build("7", batch=noisy, model=model, loss_type="mse", huber_c=0.1, snr_gamma=0.0,
                                 target="original")["result"][0]  # fmt: skip
    rows = []
    fit(loss, model, OptimizerSettings(learning_rate=2e-3), steps=steps, folder=folder, device="cpu",
        resume=find_state(resume) if resume else None, looks=[Tell(rows.extend)])  # fmt: skip
    torch.set_default_dtype(torch.float32)
    weights = {name: weight.detach().numpy() for name, weight in live.network.named_parameters()}
    return weights, [row["loss"] for row in rows]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_two_processes_go_on_amid_an_epoch(tars, tmp_path):
    """Stopped in the second pass over ten pictures, by two processes; one that never stopped has the same weights."""
    through = trained(tars, tmp_path / "through", 4, 6)
    together(2, trained, tars, tmp_path / "run", 2, 3)
    weights, losses = together(2, trained, tars, None, 2, 6, tmp_path / "run_00001")[0]
    assert losses == pytest.approx(through[1][3:], abs=1e-6)
    for name, value in through[0].items():
        assert weights[name] == pytest.approx(value, abs=1e-6)


def test_readers_of_parts_of_a_batch_draw_what_one_of_all_draws(tars, read):
    """Each item's generator is keyed by its position in the run."""
    shards = read(tars, crop="random", flip=True)
    items = plan_batch(shards.info, 6, 3, 0, "data")
    whole = shards.batch(items, ItemGenerators(0, "data", 18, 6))
    parts = [shards.batch(items[at : at + 2], ItemGenerators(0, "data", 18 + at, 2)) for at in (0, 2, 4)]
    assert torch.equal(torch.cat([part.latents for part in parts]), whole.latents)


def test_pictures_are_named(tars, read):
    """In errors and reports: by their names in the shard."""
    shards = read(tars)
    assert name_of(shards, 8).endswith("नाम8.png)")
    assert name_of(Mixture([shards, shards], [1, 1]), 18).endswith("नाम8.png)")


def test_what_cannot_be_read_is_said_in_a_line(tars, tar, read, tmp_path):
    """Which place, and what to do."""
    (tmp_path / "text.tar").write_text("no tar at all")
    (tmp_path / "packed.tar").write_bytes(gzip.compress((tars / "data-000.tar").read_bytes()))
    (tmp_path / "empty").mkdir()
    for place, said in {
        "": "name the tar files",
        tmp_path / "nothing.tar": "there is no .*nothing.tar",
        f"{tmp_path}/none-*.tar": "there is no .tar file at",
        f"{tars}/data-{{000..005}}.tar": "there is no .*data-004.tar.*and 1 more",
        tmp_path / "empty": "there is no .tar file at",
        tmp_path / "text.tar": "no whole tar file",
        tmp_path / "packed.tar": "a compressed one must be unpacked",
        tar({"a.txt": b"alone"}): "no picture",
        "nosuch://a/b.tar": "nosuch",
        f"{tars}/data-{{000.tar": "a brace is not closed",
    }.items():
        with pytest.raises(ValueError, match=said) as error:
            read(place)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("shards: ")
