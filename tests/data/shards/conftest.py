"""Folders of pictures, and the same files as shards, written by WebDataset's own writer."""

import io
import tarfile

import numpy as np
import pytest
from comfyui_rollout.data.shards.images import ShardImages
from comfyui_rollout.data.shards.index import index_of
from comfyui_rollout.data.shards.source import shards_at
from PIL import Image

SHAPES = ((70, 70), (128, 70), (70, 140), (90, 64))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Ten pictures of four shapes in two nested class folders, seven with captions: texts and JSON, one unicode."""
    place = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(10):
        name = place / ("cats" if number < 5 else "dogs/ऊपर") / f"नाम{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 255, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(SHAPES[number % 4], Image.Resampling.BICUBIC).save(name)
        if number < 5:
            name.with_suffix(".txt").write_text(f"caption {number}, चित्र", encoding="utf-8")
        elif number < 7:
            name.with_suffix(".json").write_text(f'{{"caption": "json {number}", "width": 3}}')
    return place


@pytest.fixture(scope="session")
def tars(folder, tmp_path_factory):
    """The folder's files as four shards of three samples, in the folder's order, by the library that defined them."""
    import webdataset

    place = tmp_path_factory.mktemp("shards")
    with webdataset.ShardWriter(str(place / "data-%03d.tar"), maxcount=3, verbose=0) as sink:
        for path in sorted(folder.rglob("*.png")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            texts = {suffix: path.with_suffix(f".{suffix}") for suffix in ("txt", "json")}
            sample = {suffix: text.read_bytes() for suffix, text in texts.items() if text.exists()}
            label = b"0" if name.startswith("cats") else b"1"
            sink.write({"__key__": name, "png": path.read_bytes(), "cls": label, **sample})
    return place


@pytest.fixture
def read():
    """``read(place, **options)``: the pictures of shards."""

    def read(place, indexes=None, **options):
        return ShardImages(index_of(shards_at(str(place)), indexes), **{"size": 64, **options})

    return read


@pytest.fixture
def tar(tmp_path):
    """``tar({"a.png": ..., })``: a tar file of these; True stands for a picture."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")

    def tar(files, name="one.tar"):
        with tarfile.open(tmp_path / name, "w") as file:
            for each, data in files.items():
                content = picture.getvalue() if data is True else data
                info = tarfile.TarInfo(each)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        return tmp_path / name

    return tar


@pytest.fixture
def served():
    """``served(folder)``: the URL at which a web server has it, parts of files included."""
    import asyncio
    import threading

    from aiohttp import web

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners = []

    def wait(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    async def start(folder):
        app = web.Application()
        app.router.add_static("/", folder)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    yield lambda folder: wait(start(folder))
    for runner in runners:
        wait(runner.cleanup())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
