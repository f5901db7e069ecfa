"""Data sets and captions, from a configuration."""

import pytest
from brought_over import at_least, inputs, kinds, small


def test_pairs_are_brought_over():
    """A data set of conditioning pictures is the control folder of the one that names it."""
    made = {"id": "made", "instance_data_dir": "datasets/corgi", "caption_strategy": "textfile"}
    shown = {"id": "shown", "dataset_type": "conditioning", "instance_data_dir": "datasets/before"}
    imported = small([made | {"conditioning_data": ["shown"]}, shown], model_family="flux", model_flavour="kontext")
    assert inputs(imported, "ImageFolderDataset")["control"] == "datasets/before"
    assert kinds(imported).count("ImageFolderDataset") == 1
    assert not any("no place here" in line for line in imported.report.changed)
    alone = small([made, shown], model_family="flux")
    assert any("'conditioning' has no place here" in line for line in alone.report.changed)


def test_shuffled_tags():
    """Orders besides the original one; what cannot be had is said."""
    folder = {"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile", "crop": True}
    shuffled = small([folder | {"caption_shuffle": {"enable": "true", "count": 3}}])
    at_least(inputs(shuffled, "EncodeDataset"), shuffle_tags=True, caption_variants=4)
    assert not any("caption_shuffle" in line for line in shuffled.report.changed)
    at_least(inputs(small([folder | {"caption_shuffle": {"enable": False}}]), "EncodeDataset"), shuffle_tags=False)
    periods = small([folder | {"caption_shuffle": {"enable": True, "split_on": "period"}}])
    assert any("caption_shuffle" in line for line in periods.report.changed)
    with pytest.raises(ValueError, match="data set 1: caption_shuffle: count: 'x' is not a number"):
        small([folder | {"caption_shuffle": {"enable": True, "count": "x"}}])


def test_captions():
    """Instance prompts become captions or trigger words; captions that cannot be made here are said to be missing."""
    folder = {"instance_data_dir": "datasets/corgi", "instance_prompt": "sks dog"}
    only = small([folder | {"caption_strategy": "textfile", "only_instance_prompt": True}])
    assert inputs(only, "ImageFolderDataset")["default_caption"] == "sks dog"
    before = small([folder | {"caption_strategy": "textfile", "prepend_instance_prompt": "true"}])
    assert inputs(before, "EncodeDataset")["trigger_word"] == "sks dog"
    assert inputs(before, "ImageFolderDataset")["default_caption"] == ""
    names = small([folder | {"caption_strategy": "filename"}])
    assert any("'filename'" in line for line in names.report.changed)


def test_sizes_and_crops():
    """Megapixels and pixels, to multiples of 64; everything but square crops is bucketed."""
    folder = {"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile"}
    for more, size, buckets, crop in [
        ({"resolution": 1.0, "resolution_type": "area", "crop": True}, 1024, False, "random"),
        ({"resolution": "0.5", "resolution_type": "area"}, 704, True, "center"),
        ({"resolution": 768, "crop": True, "crop_aspect": "closest"}, 768, True, "random"),
        ({"crop": "true", "crop_style": "corner"}, 512, False, "center"),
    ]:
        imported = small([folder | more], resolution=512)
        at_least(inputs(imported, "ImageFolderDataset"), size=size, buckets=buckets, crop=crop)


def test_many_data_sets():
    """More than Combine Datasets takes are combined in turn, each with its share; uniform sampling ignores sizes."""
    folders = [{"id": str(number), "instance_data_dir": "datasets/corgi", "repeats": number} for number in range(6)]
    imported = small(folders, data_backend_sampling="uniform")
    assert kinds(imported).count("CombineDatasets") == 2
    assert inputs(imported, "CombineDatasets", 1) == {
        "weight_1": 4.0,
        "weight_2": 1.0,
        "weight_3": 1.0,
        "weight_4": 1.0,
    }
    by_size = small(folders[:2])
    at_least(inputs(by_size, "CombineDatasets"), weight_1=0.5, weight_2=1.0)


def test_pixel_is_the_smaller_edge():
    """Said where images may be oblong; squares are the same either way."""
    folder = {"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile", "resolution": 512}
    oblong = small([folder | {"resolution_type": "pixel"}])
    assert any("512 is the smaller edge there" in line for line in oblong.report.changed)
    for more in ({"resolution_type": "pixel", "crop": True}, {"resolution_type": "pixel_area"}):
        assert not any("smaller edge" in line for line in small([folder | more]).report.changed)
