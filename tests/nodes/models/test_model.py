"""New Model, Load Model, Save Model."""

import json

import pytest
import torch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.models import saving
from comfyui_rollout.models.families import UNet
from comfyui_rollout.nodes import DigitsDataset, ImageFolderDataset, LoadModel, NewModel, SaveModel
from comfyui_rollout.nodes.models.model import saved_model
from comfyui_rollout.training.stream import Run
from PIL import Image

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def new_model(wire):
    def make(**settings):
        dataset = wire(DigitsDataset, batch_size=2)
        return wire(NewModel, dataset=dataset, **{"width": 8, "depth": 1, **settings})

    return make


def state(stream, seed=0):
    return Run(stream, seed=seed).value(stream).network.state_dict()


def test_a_new_model_fits_its_data_set(new_model):
    """Size, channels and classes come over the wire; without class_conditional there are no classes."""
    told, untold = new_model(), new_model(class_conditional=False)
    model = Run(told).value(told)
    assert (model.latent_shape, model.classes) == ((1, 8, 8), 10)
    assert Run(untold).value(untold).classes == 0


def test_images_without_a_class_are_refused_where_classes_are_told(wire, tmp_path):
    """Beside class folders they have none; without class_conditional nobody asks."""
    for name in ("cat/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    dataset = wire(ImageFolderDataset, folder=str(tmp_path), size=8, batch_size=1)
    with pytest.raises(ValueError, match=r"class_conditional: .*b\.png lies beside the class folders \(cat\)"):
        wire(NewModel, dataset=dataset, width=8, depth=1)
    assert wire(NewModel, dataset=dataset, width=8, depth=1, class_conditional=False).about.classes == 0


def test_a_new_model_is_made_once_a_run(new_model):
    """All nodes of a run share one live network; the next run gets a new one."""
    stream = new_model()
    run = Run(stream)
    assert run.value(stream) is run.value(stream)
    assert Run(stream).value(stream) is not run.value(stream)


def test_weights_are_fixed_by_the_seed(new_model, same_bits):
    """The same seed starts from the same weights, whatever the global generator did before."""
    torch.manual_seed(1)
    first = state(new_model())
    torch.manual_seed(2)
    assert same_bits(state(new_model()), first)
    assert not same_bits(state(new_model(), seed=1), first)


@pytest.mark.parametrize(
    ("settings", "words"), [({"width": 12}, "multiple of 8"), ({"family": "dit", "width": 40}, "multiple of 32")]
)
def test_numbers_that_do_not_fit_are_refused_while_wiring(new_model, settings, words):
    """Before any training starts."""
    with pytest.raises(ValueError, match=words):
        new_model(**settings)


def test_one_sub_folder_is_no_class(wire, tmp_path, train, graph):
    """A single class tells the network nothing; both families can still be made."""
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
    dataset = wire(ImageFolderDataset, folder=str(tmp_path), batch_size=2, size=8)
    for family in ("unet", "dit"):
        stream = wire(NewModel, dataset=dataset, family=family, width=32, depth=1)
        model = Run(stream).value(stream)
        model(torch.zeros(2, 3, 8, 8), torch.zeros(2), {"label": torch.zeros(2, dtype=torch.long)})


# Saving and loading


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What Optimizer Step gives: a model with weights, here without the training."""
    with global_seed(0):
        model = UNet.create(channels=1, size=8, classes=10, width=8, depth=1)
    folder = tmp_path_factory.mktemp("run") / "model"
    saving.save_model(folder, model, FlowMatching(), {})
    return saved_model(folder, "9", "Optimizer Step")


@pytest.fixture
def save(build, trained):
    """``save(name="mine")``: Save Model on the trained model; what it tells."""
    return lambda **inputs: build(SaveModel, **{"model": trained, "schedule": FlowMatching(shift=2.0), **inputs})


@pytest.fixture
def saved(save, output):
    save(name="mine")
    return output / "models" / "mine_00001"


def test_a_saved_model_loads_back_to_the_bit(build, saved, trained, same_bits):
    """Weights and schedule; Load Model knows what it will be before it is loaded."""
    stream, schedule = build(LoadModel, folder=str(saved))
    assert schedule == FlowMatching(shift=2.0)
    assert same_bits(state(stream), state(trained))
    assert (stream.about.channels, stream.about.size, stream.about.classes) == (1, 8, 10)
    assert stream.about.has_weights


def test_only_a_trained_model_can_be_saved(save, new_model, output):
    """A new model would be saved with fresh random weights, whatever was trained beside it."""
    with pytest.raises(ValueError, match=r"^model: this is a new model with random weights; wire the model that"):
        save(model=new_model(), name="mine")
    assert not output.exists()


def test_the_schedule_must_be_saved_too():
    """Weights whose schedule nobody knows cannot be sampled or trained further."""
    assert "schedule" in SaveModel.INPUT_TYPES()["required"]
    assert "schedule" not in SaveModel.INPUT_TYPES()["optional"]


def test_nothing_is_overwritten(save, saved, output):
    """Saving under the same name again takes the next number, and says where."""
    told = save(name="mine")
    assert told == {"ui": {"text": [str(output / "models" / "mine_00002")]}}
    assert sorted(path.name for path in (output / "models").iterdir()) == ["mine_00001", "mine_00002"]


def test_the_workflow_travels_with_the_weights(save, output):
    """The saved file can be dropped on the canvas."""
    from safetensors import safe_open

    prompt, workflow = {"1": {"class_type": "X"}}, {"nodes": [1]}
    save(name="mine", prompt=prompt, extra_pnginfo={"workflow": workflow})
    with safe_open(output / "models" / "mine_00001" / WEIGHTS, framework="pt") as file:
        found = file.metadata()
    assert json.loads(found["workflow"]) == workflow
    assert json.loads(found["prompt"]) == prompt


@pytest.mark.parametrize("place", ["models/mine_00001", "{output}/models/mine_00001"])
def test_a_model_is_found_below_the_output_folder(build, saved, output, place):
    """Full paths work, and short ones as the folder shows them."""
    stream, _ = build(LoadModel, folder=place.format(output=output))
    assert stream.inputs["folder"] == saved


def test_the_folder_of_a_run_will_do(build, graph, train, same_bits):
    """The model is found inside it."""
    run = train(graph())
    short = f"rollout/{run.folder.name}"
    stream, schedule = build(LoadModel, folder=short)
    assert LoadModel.VALIDATE_INPUTS(folder=short) is True
    assert same_bits(state(stream), run.weights)
    assert schedule == FlowMatching()


def test_a_loaded_model_can_be_trained_further(build, graph, train, same_bits):
    """Also inside ComfyUI's inference mode: it starts from the saved weights and moves on."""
    from types import SimpleNamespace

    from comfyui_rollout.nodes import DiffusionLoss

    with torch.inference_mode():
        first = train(graph())
        model, _ = build(LoadModel, folder=str(first.folder))
        (loss,) = build(DiffusionLoss, batch=graph().batch, model=model)["result"]
        still = train(SimpleNamespace(loss=loss, model=model), steps=1, clip_norm=1e-30, seed=1)
        moved = train(SimpleNamespace(loss=loss, model=model), steps=1, seed=1)
    assert same_bits(first.weights, {name: value.clone() for name, value in state(model).items()})
    assert not same_bits(moved.weights, first.weights)
    assert max(float((still.weights[name] - value).abs().max()) for name, value in first.weights.items()) < 0.1


def damaged(saved, kind):
    weights, config = saved / WEIGHTS, saved / "config.json"
    if kind == "no folder":
        return saved / "nowhere"
    if kind == "no config":
        config.unlink()
    if kind == "no weights":
        weights.unlink()
    if kind == "weights cut short":
        weights.write_bytes(weights.read_bytes()[:-10])
    if kind == "no json":
        config.write_text("{")
    if kind == "another network":
        config.write_text('{"_class_name": "AutoencoderKL"}')
    if kind == "bad schedule":
        (saved / "schedule.json").write_text("{}")
    if kind == "no schedule":
        (saved / "schedule.json").unlink()
    return saved


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("no folder", "nowhere"),
        ("no config", "config.json"),
        ("no weights", WEIGHTS),
        ("weights cut short", WEIGHTS),
        ("no json", "config.json"),
        ("another network", "config.json"),
        ("bad schedule", "schedule.json"),
        ("no schedule", "schedule.json"),
    ],
)
def test_a_bad_model_folder_is_refused_before_the_run(saved, kind, named):
    """In one line that names the file."""
    message = LoadModel.VALIDATE_INPUTS(folder=str(damaged(saved, kind)))
    assert isinstance(message, str)
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["no folder", "no config", "another network", "bad schedule", "no schedule"])
def test_the_node_itself_refuses_it_too(build, saved, kind, one_line):
    """A folder that came over a wire was not validated before."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        build(LoadModel, folder=str(damaged(saved, kind)))
    one_line(caught)


def test_weights_that_do_not_fit_fail_when_loaded(build, saved, one_line):
    """One line with the file, not torch's list of every tensor."""
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"block_out_channels": [16]}))
    stream, _ = build(LoadModel, folder=str(saved))
    with pytest.raises(RuntimeError, match=r"node RolloutLoadModel \(Load Model\), step 0: .*does not fit") as caught:
        Run(stream).value(stream)
    assert str(saved / WEIGHTS) in one_line(caught)


def test_an_empty_folder_name_is_not_the_current_folder(build):
    """The widget's default must not load whatever lies where the program was started."""
    assert "name the folder" in LoadModel.VALIDATE_INPUTS(folder="")
    assert LoadModel.VALIDATE_INPUTS(folder=None) is True
    with pytest.raises(ValueError, match="name the folder"):
        build(LoadModel, folder=" ")


def test_a_replaced_model_is_noticed(saved):
    """A cached Load Model is loaded again when its weights changed."""
    import os

    before = LoadModel.IS_CHANGED(folder=str(saved))
    assert LoadModel.IS_CHANGED(folder=str(saved)) == before
    os.utime(saved / WEIGHTS, ns=(1, 1))
    assert LoadModel.IS_CHANGED(folder=str(saved)) != before


@pytest.mark.parametrize("name", ["", "  ", "a/b", "../a", "/a"])
def test_a_name_with_slashes_is_refused(name):
    """Models stay below the output folder."""
    assert "plain folder name" in SaveModel.VALIDATE_INPUTS(name=name)
    assert SaveModel.VALIDATE_INPUTS(name="a b") is True


def test_an_unwritable_place_is_one_clear_line(save, output):
    """A file where the folder should be."""
    output.write_text("a file")
    with pytest.raises(ValueError, match=r"^cannot write in '.*models' \(.*\): choose another output folder$"):
        save(name="mine")


@pytest.mark.parametrize(
    ("file", "node"), [("model_index.json", "Load Pretrained"), ("pytorch_lora_weights.safetensors", "Add LoRA")]
)
def test_load_model_names_the_node_that_loads_it(tmp_path, file, node):
    """A run of a pretrained model left something else, and the user is told where it goes."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).touch()
    assert node in LoadModel.VALIDATE_INPUTS(str(tmp_path))
