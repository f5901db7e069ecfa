"""Tests see this checkout as ``comfyui_rollout``; pytest must not import the pack root itself."""

import gc
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "comfyui_rollout"


def load_pack(name, root=ROOT):
    return load_file(name, root / "__init__.py", submodule_search_locations=[str(root)])


def load_file(name, path, **options):
    spec = importlib.util.spec_from_file_location(name, path, **options)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if PACKAGE not in sys.modules:
    load_pack(PACKAGE)

import tiny_pipelines as pipelines  # noqa: E402  # it needs the pack
from toys import listener, numbered, one_line, regression, small_unet  # noqa: E402, F401  # fixtures


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_look_through():
    """What is there before a file's tests is not looked through again by the collections that each training makes."""
    gc.collect()
    gc.freeze()


class RootIsNotATestPackage:
    @staticmethod
    def pytest_collect_directory(path, parent):
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config):
    config.pluginmanager.register(RootIsNotATestPackage())


def pytest_collection_modifyitems(items):
    """Browser tests come last: Playwright's event loop runs in the main thread until the last of them is over."""
    items.sort(key=lambda item: "browser" in item.path.parts)


@pytest.fixture(scope="session")
def tiny_pipelines():
    """The makers of pipelines with random weights, for a test that wants the live parts."""
    return pipelines


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory):
    """``tiny_pipeline(family, **options) -> Path``: its folder, made once in a session. Do not write into it."""
    made = {}

    def folder(family, **options):
        key = (family, repr(sorted(options.items())))
        if key not in made:
            made[key] = pipelines.save(family, tmp_path_factory.mktemp(family) / "pipeline", **options)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two folders of real photographs with captions, some upright and some lying."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    root = tmp_path_factory.mktemp("photos")
    for name, pixels in zip(("pagoda", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for place, box in enumerate([(0, 0, 320, 320), (100, 50, 640, 380), (200, 0, 420, 420)]):
            Image.fromarray(pixels).crop(box).save(root / name / f"{place}.jpg")
            (root / name / f"{place}.txt").write_text(f"a photo of a {name}, number {place}")
    return root
