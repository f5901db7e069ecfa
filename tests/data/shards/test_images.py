"""Shards as a data set: what a folder of the same files gives, whoever wrote them and wherever they lie."""

import gzip
import shutil
import sys
import tarfile
import threading
from contextlib import ExitStack
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
from together import together

OPTIONS = (
    {},
    {"crop": "random", "flip": True, "color": "L", "repeats": 2, "default_caption": "a photo"},
    {"size": 128, "buckets": True, "flip": True, "crop": "random", "upscale": False, "loss_weight": 0.5},
    {"size": 128, "buckets": True, "max_aspect_ratio": 1.5},
)


def same(one, other):
    assert torch.equal(one.latents, other.latents)
    assert one.captions == other.captions
    assert torch.equal(one.conditioning["label"], other.conditioning["label"])
    assert (one.weight is None) == (other.weight is None)


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
        same(one.batch(index), other.batch(index))


def test_a_run_that_goes_on_sees_the_same_batches(tars, read):
    """From any step: a batch is a function of its number, also where the loader remembers the order of an epoch."""
    shards = read(tars, size=128, buckets=True, crop="random")
    run = Loader(shards, 3, 5, "data")
    seen = [run.batch(index) for index in range(9)]
    for start in range(0, 9, 2):
        resumed = Loader(shards, 3, 5, "data")
        for index in range(start, 9):
            same(resumed.batch(index), seen[index])


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


def test_shards_are_found_as_people_name_them(tars, read):
    """A folder, a pattern, braces, a URL, one file; in the order that was said."""
    for place in (tars, f"{tars}/*.tar", f"{tars}/data-{{000..003}}.tar", f"file://{tars}/data-00*.tar"):
        assert len(read(place).index) == 10
    backwards = read(f"{tars}/data-{{003..000}}.tar")
    assert backwards.index.path(0).name == "नाम9.png"
    assert len(read(tars / "data-000.tar").index) == 3


def test_shards_in_memory_and_over_http(tars, read, served):
    """Any URL that fsspec opens: the same batch."""
    import fsspec

    wanted = read(tars).batch([7, 2], ItemGenerators(0, "data", 0, 2))
    memory = fsspec.filesystem("memory")
    for path in tars.glob("*.tar"):
        memory.pipe(f"/shards/{path.name}", path.read_bytes())
    try:
        same(read("memory://shards/data-*.tar").batch([7, 2], ItemGenerators(0, "data", 0, 2)), wanted)
    finally:
        memory.rm("/shards", recursive=True)
    same(read(served(tars) + "/data-{000..003}.tar").batch([7, 2], ItemGenerators(0, "data", 0, 2)), wanted)


def test_an_index_is_made_once(tars, read, tmp_path, monkeypatch):
    """A second start reads no tar; a shard more costs that shard; one that was written anew is read again."""
    from comfyui_rollout.data.shards import index

    looked, through = [], index.read_through
    monkeypatch.setattr(
        index, "read_through", lambda shards, number, stopped: looked.append(number) or through(shards, number, stopped)
    )
    place, kept = tmp_path / "copy", tmp_path / "index"
    shutil.copytree(tars, place)
    (place / "data-003.tar").rename(tmp_path / "later.tar")
    first = read(place, kept)
    assert sorted(looked) == [0, 1, 2]
    assert (read(place, kept).index.rows == first.index.rows).all()
    assert sorted(looked) == [0, 1, 2]
    (tmp_path / "later.tar").rename(place / "data-003.tar")
    assert len(read(place, kept).index) == 10
    assert sorted(looked) == [0, 1, 2, 3]
    next(kept.iterdir()).write_bytes(b"damaged")
    shutil.copy(place / "data-003.tar", place / "data-001.tar")
    read(place, kept)
    assert len(looked) in (5, 6)  # the damaged file may be of the shard that changed


def test_an_indexing_that_is_stopped_goes_on(tars, read, tmp_path):
    """What was read is kept."""

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_of(shards_at(str(tars)), tmp_path, stop)
    assert len(list(tmp_path.glob("*.npz"))) >= 2
    assert len(read(tars, tmp_path).index) == 10


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


def test_a_torn_shard_gives_what_is_whole(tars, read, tmp_path, caplog):
    """Wherever it was cut off: the samples before, and a line that says so."""
    data = (tars / "data-000.tar").read_bytes()
    whole = read(tars / "data-000.tar")
    third = int(whole.index.rows["start"][2])
    with tarfile.open(tars / "data-000.tar") as file:
        last = file.getmembers()[-1]
        end = last.offset_data + 512 * -(-last.size // 512)
    for length in (third + 100, third - 512, third - 700, end):
        (tmp_path / "torn.tar").write_bytes(data[:length])
        caplog.clear()
        assert len(read(tmp_path / "torn.tar").index) in (2, 3)
        assert "no whole tar file" in caplog.text
    garbled = bytearray(data)
    garbled[third - 512 : third - 400] = b"?" * 112
    (tmp_path / "torn.tar").write_bytes(garbled)
    assert len(read(tmp_path / "torn.tar").index) == 2


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


def test_a_protocol_whose_package_is_missing_names_it(read):
    """As fsspec says it: s3 wants s3fs, gs wants gcsfs."""
    from fsspec import register_implementation
    from fsspec.registry import known_implementations

    register_implementation("far", "no_such_package.Files", errtxt="Install farfs to access Far")
    try:
        with pytest.raises(ValueError, match=r"^shards: cannot open 'far://a/b.tar': Install farfs to access Far$"):
            read("far://a/b.tar")
    finally:
        known_implementations.pop("far", None)


def test_a_server_without_ranges_is_refused(tars, read):
    """Whether it says so before anything is read, or sends whole files for parts of them."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Silent(SimpleHTTPRequestHandler):
        says = ""

        def log_message(self, *said):
            pass

        def end_headers(self):
            if self.says:
                self.send_header("Accept-Ranges", self.says)
            super().end_headers()

    for says in ("none", "bytes"):
        handler = partial(type("Handler", (Silent,), {"says": says}), directory=str(tars))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                with pytest.raises(ValueError, match="does not serve parts of files"):
                    read(f"http://127.0.0.1:{server.server_port}/data-000.tar").batch(
                        [0], ItemGenerators(0, "data", 0, 1)
                    )
            finally:
                server.shutdown()
                thread.join()
