"""What Optimizer Step looks at before anything is loaded: do loss, model and data belong together?"""

from types import SimpleNamespace

import pytest
from comfyui_rollout import nodes
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.nodes.training.checks import check_precision
from PIL import Image


@pytest.mark.parametrize(("storage", "precision"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_two_sixteen_bit_formats_are_refused_before_loading(storage, precision):
    """Autocast cannot bring them together, and says so after gigabytes were loaded."""
    source = SimpleNamespace(storage=storage)
    info = SimpleNamespace(pretrained=SimpleNamespace(source=source))
    with pytest.raises(ValueError, match=f"precision is {precision}, and storage in Load Pretrained is {storage}"):
        check_precision(info, precision)
    for fine in (storage, "fp32"):
        check_precision(info, fine)


def test_another_model_than_the_loss_is_refused(graph, train, output):
    """Two New Model nodes by accident: nothing would be learnt."""
    wired = SimpleNamespace(loss=graph().loss, model=graph().model)
    with pytest.raises(ValueError, match="wire the same model into the loss"):
        train(wired)
    assert not output.exists()


def test_a_model_of_another_size_is_refused(graph, train, wire):
    """In numbers that a person can compare, naming the data set."""
    wired = graph()
    larger = wire(nodes.DigitsDataset, batch_size=2, size=16)
    batch = wire(nodes.NoisyBatch, dataset=larger, schedule=wired.schedule)
    loss = wire(nodes.DiffusionLoss, batch=batch, model=wired.model)
    with pytest.raises(
        ValueError, match=r"made for 1 x 8 x 8 images, and node .* \(Digits Dataset\) gives 1 x 16 x 16"
    ):
        train(SimpleNamespace(loss=loss, model=wired.model))


@pytest.fixture
def picture_folder(tmp_path):
    """``picture_folder("cat", "dog")``: a folder with an image for each class; without names, of one image."""

    def paint(*classes):
        place = tmp_path / "_".join(("images", *classes))
        for name in classes or (".",):
            (place / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(place / name / "a.png")
        return str(place)

    return paint


@pytest.mark.parametrize("classes", [(), ("ant", "bee", "cat")])
def test_a_data_set_with_other_classes_is_refused(graph, wire, train, picture_folder, output, classes):
    """A label that the model has no number for, or no labels at all, is said before anything is loaded."""
    two, other = (
        wire(nodes.ImageFolderDataset, folder=picture_folder(*names), size=8, color="L", batch_size=2)
        for names in (("ant", "bee"), classes)
    )
    model = wire(nodes.NewModel, dataset=two, width=8, depth=1)
    batch = wire(nodes.NoisyBatch, dataset=other, schedule=FlowMatching())
    wired = SimpleNamespace(loss=wire(nodes.DiffusionLoss, batch=batch, model=model), model=model)
    with pytest.raises(ValueError, match=rf"knows 2 classes, and node .* \(Image Folder Dataset\) has {len(classes)}$"):
        train(wired)
    assert not output.exists()


def test_a_data_set_with_fewer_classes_will_do(graph, wire, train, picture_folder):
    """A model of ten digits may be trained further on two kinds of pictures; one without classes on anything."""
    folder = wire(nodes.ImageFolderDataset, folder=picture_folder("ant", "bee"), size=8, color="L", batch_size=2)
    batch = wire(nodes.NoisyBatch, dataset=folder, schedule=FlowMatching())
    for told in (True, False):
        model = graph(model={"class_conditional": told}).model
        loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
        assert train(SimpleNamespace(loss=loss, model=model), steps=1).facts["status"] == "finished"
