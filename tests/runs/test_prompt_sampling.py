"""Images for prompts, around the network that is trained."""

import weakref
from dataclasses import replace

import pytest
import torch
from comfyui_rollout.data.encodings import encoders
from comfyui_rollout.diffusion.schedules import DDPM
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.runs.prompt_sampling import (
    SamplingSettings,
    check_size,
    encode_prompts,
    first_images,
    sample_prompts,
    sampling_pipeline,
)
from comfyui_rollout.training.stream import Run
from comfyui_rollout.training.weights import averaged
from PIL import Image

PROMPTS = {"dit": ["0", "dog"]}
LABELS = [0, 1]
NEGATIVE = "ugly"
NO_WORDS = ("flux2_klein", "ideogram4")
"""Families whose pipeline itself is told no negative prompt in words: it reads an empty one, or none at all."""
UNPADDED = ("krea2", "ideogram4")
SMALL = SamplingSettings(steps=2, guidance=4.0, width=64, height=32, count=2, seed=5)
NATIVE = replace(SMALL, width=0, height=0)


def settings_of(family):
    return NATIVE if family == "dit" else SMALL


@pytest.fixture
def pretrained(tiny_pipeline):
    """``pretrained(family, storage=...)``: a tiny pipeline on a wire."""

    def wire(family="sd", **options):
        source = Source(str(tiny_pipeline(family)), **{"storage": "fp32", **options})
        return Pretrained(source, inspect(source))

    return wire


@pytest.fixture
def pictures(tiny_pipelines, monkeypatch):
    """``pictures(family)``: one for each of two prompts to change, where the family must be shown some."""
    tiny_pipelines.small_pictures(monkeypatch)
    shown = [Image.new("RGB", (80, 64), colour) for colour in ("blue", "yellow")]
    return lambda family: shown if PRETRAINED[family].control == "must" or family == "flux_kontext" else []


@pytest.fixture
def prepared(pretrained, pictures):
    """``prepared(family)``: the live model, its pipeline and the encoded prompts."""

    def make(family="sd", prompts=("ab", "c d e"), **options):
        wired = pretrained(family, **options)
        model = load_network(wired.source, wired.info, "cpu")
        avoided = "" if family in NO_WORDS else NEGATIVE
        encoded = encode_prompts(wired, PROMPTS.get(family, prompts), avoided, "cpu", pictures(family))
        return model, sampling_pipeline(wired, model), encoded

    return make


@pytest.fixture
def draw():
    """``draw(*prepared(), settings)``: the images, with nobody watching."""

    def images(model, pipeline, prompts, settings=SMALL, check=lambda: None, progress=lambda done, total: None):
        return sample_prompts(model, pipeline, prompts, settings, check=check, progress=progress)

    return images


def with_lora(model):
    """An adapter that has learnt something."""
    add_adapter(model, AdapterSettings("lora", rank=2, targets=("to_q", "to_k", "to_v")), 0)
    model.prepare_training()
    with torch.no_grad():
        for weight in model.trained.values():
            weight.normal_(std=0.2, generator=torch.Generator().manual_seed(weight.numel()))
    return model


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_images_are_those_of_the_plain_pipeline(pretrained, prepared, pictures, draw, family):
    """The family's diffusers pipeline, told the text itself and the same seeds, draws the same, bit for bit.

    Where text comes without the padding of its pipeline, sums are rounded in another order.
    """
    settings, wired = settings_of(family), pretrained(family)
    images = draw(*prepared(family), settings)
    kind = wired.info.kind
    plain = load_parts(wired.source, wired.info, [*kind.text_parts, "vae", kind.network_part, kind.guide_part])
    plain.set_progress_bar_config(disable=True)
    shared = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "pt"}
    if family == "dit":
        asked = [{"class_labels": [label]} for label in LABELS]
    else:
        shared |= {"width": 64, "height": 32}
        shared |= {"negative_prompt": NEGATIVE} if kind.negative_prompts and family not in NO_WORDS else {}
        asked = [{"prompt": prompt} for prompt in ("ab", "c d e")]
        shared |= {"max_area": 64 * 32} if family == "flux_kontext" else {}
        shared |= {"num_frames": 1, "max_sequence_length": 512} if family == "wan" else {}
        shared |= {"enable_prompt_rewrite": False} if family == "longcat_image" else {}
        for prompt, picture in zip(asked, pictures(family), strict=False):
            prompt["image"] = picture
    wanted = [
        first_images(plain(**shared, **prompt, generator=torch.Generator().manual_seed(seed)))
        for prompt in asked
        for seed in (5, 6)
    ]
    torch.testing.assert_close(images, torch.cat(wanted), rtol=0, atol=1e-5 if family in UNPADDED else 0.0)
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("storage", ["bf16", "fp16"])
def test_half_precision_weights_draw_nearly_the_same(prepared, draw, storage):
    """Embeddings, latents and VAE follow the network's number format; adapters in fp32 do not disturb that."""
    seen = {}
    for kept in ("fp32", storage):
        model, pipeline, prompts = prepared(storage=kept)
        seen[kept] = [draw(model, pipeline, prompts), draw(with_lora(model), pipeline, prompts)]
    for exact, rounded in zip(*seen.values(), strict=True):
        assert (rounded - exact).abs().mean() < 0.02
    assert (seen["fp32"][1] - seen["fp32"][0]).abs().mean() > 0.02


def test_a_fully_trained_network_is_sampled_in_the_format_of_its_training(prepared, draw):
    """Its weights are fp32 by then, whatever the file was loaded as; the VAE follows."""
    model, pipeline, prompts = prepared(storage="bf16")
    model.prepare_training()
    assert draw(model, pipeline, prompts).isfinite().all()
    assert pipeline.vae.dtype == torch.float32


def test_a_live_adapter_is_seen(prepared, draw):
    """The picture changes with the LoRA in the network, at once and without loading anything."""
    model, pipeline, prompts = prepared()
    before = draw(model, pipeline, prompts)
    with_lora(model)
    assert (draw(model, pipeline, prompts) - before).abs().max() > 1e-3


def test_averaged_weights_are_seen(prepared, draw):
    """Inside averaged() the picture is that of the EMA, and the live weights come back."""
    from diffusers.training_utils import EMAModel

    model, pipeline, prompts = prepared()
    with_lora(model)
    average, live = draw(model, pipeline, prompts), list(model.trained.values())
    run = Run()
    run.averaged_weights = EMAModel(live)
    with torch.no_grad():
        for weight in live:
            weight.zero_()
    now = draw(model, pipeline, prompts)
    with averaged(run, model.network):
        assert torch.equal(draw(model, pipeline, prompts), average)
    assert torch.equal(draw(model, pipeline, prompts), now)
    assert not torch.equal(now, average)


def test_there_is_one_network(pretrained, prepared, draw):
    """The pipeline holds the very weights that are trained; making it and drawing move, cast and freeze none."""
    model, _, prompts = prepared(storage="bf16")
    with_lora(model)

    def facts():
        weights = model.network.named_parameters()
        return {name: (weight.data_ptr(), weight.dtype, weight.requires_grad) for name, weight in weights}

    before = facts()
    pipeline = sampling_pipeline(pretrained(storage="bf16"), model)
    draw(model, pipeline, prompts)
    assert pipeline.unet is model.network
    assert facts() == before
    assert all(module.training for module in model.network.modules())
    assert pipeline.text_encoder is None


def test_the_network_comes_back_as_it_was(prepared, draw):
    """In training mode, and nobody listens to its forwards any more, also when a round fails."""
    model, pipeline, prompts = prepared()
    model.prepare_training()
    model.network.mid_block.eval()
    modes = [module.training for module in model.network.modules()]
    seen = []
    model.network.register_forward_pre_hook(lambda network, _: seen.append(network.training))

    def fail():
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(model, pipeline, prompts, check=fail)
    assert seen == [False] * 3
    assert [module.training for module in model.network.modules()] == modes
    assert len(model.network._forward_pre_hooks) == 1


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_a_round_can_be_stopped_at_every_step(prepared, draw, family):
    """Also where the family's pipeline has no callback; the next round is not disturbed."""
    made, settings = prepared(family), settings_of(family)
    whole, asked = draw(*made, settings), []

    def stop():
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(*made, settings, check=stop)
    assert torch.equal(draw(*made, settings), whole)


def test_large_images_are_decoded_in_tiles(prepared, draw, monkeypatch):
    """Only those that would not fit otherwise: the next ones are decoded whole again."""
    model, pipeline, prompts = prepared()
    for limit, tiled in ((SMALL.width * SMALL.height - 1, True), (SMALL.width * SMALL.height, False)):
        monkeypatch.setattr("comfyui_rollout.models.families.vae.MOST_PIXELS", limit)
        draw(model, pipeline, prompts)
        assert pipeline.vae.use_tiling is tiled


def test_progress_counts_images(prepared, draw):
    told = []
    draw(*prepared(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_text_encoders_leave_memory(pretrained, monkeypatch):
    """What encoded the prompts is gone when they are encoded."""
    left = []

    def watched(*arguments):
        pipeline = load_parts(*arguments)
        left.extend([weakref.ref(pipeline), weakref.ref(pipeline.text_encoder)])
        return pipeline

    monkeypatch.setattr(encoders, "load_parts", watched)
    encoded = encode_prompts(pretrained(), ["a", "b"], None, "cpu")
    assert encoded.negative is None
    assert [reference() for reference in left] == [None, None]
    assert len(encoded.positive) == 2
    assert not any(value.requires_grad for each in encoded.positive for value in each.values())


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_families_that_are_guided_otherwise_encode_no_negative_prompt(prepared, draw, family):
    """They are told the guidance, or know a class for none; and without guidance nobody needs one."""
    model, pipeline, prompts = prepared(family)
    assert (prompts.negative is not None) == model.negative_prompts
    unguided = replace(settings_of(family), guidance=model.guided_above, count=1)
    images = draw(model, pipeline, replace(prompts, negative=None), unguided)
    assert images.isfinite().all()


def test_a_prompt_is_encoded_by_itself(pretrained):
    """Another prompt beside it changes nothing."""
    alone = encode_prompts(pretrained(), ["a b"], None, "cpu").positive[0]
    beside = encode_prompts(pretrained(), ["a long one, of many words", "a b"], None, "cpu").positive[1]
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_another_prediction_reaches_the_scheduler(pretrained, prepared, draw):
    """Where Load Pretrained was told the prediction by hand, images are drawn by it too."""
    assert isinstance(pretrained(prediction="v_prediction").info.schedule, DDPM)
    made = prepared(prediction="v_prediction")
    assert made[1].scheduler.config.prediction_type == "v_prediction"
    assert not torch.equal(draw(*made), draw(*prepared()))


def test_zero_terminal_snr_is_sampled_from_pure_noise(pretrained, prepared):
    """Where only the training's schedule knows of it (a file's mark), the sampler still begins at the last timestep."""
    wired = pretrained("sdxl")
    schedule = DDPM(prediction="v_prediction", zero_terminal_snr=True)
    model, plain, _ = prepared("sdxl")
    wired = replace(wired, info=replace(wired.info, schedule=schedule))
    scheduler = sampling_pipeline(wired, model).scheduler
    assert type(scheduler) is type(plain.scheduler)
    assert plain.scheduler.alphas_cumprod[-1] > 1e-3 > 1e-6 > scheduler.alphas_cumprod[-1]
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(("width", "height", "side"), [(100, 64, "width 100"), (64, 8, "height 8")])
def test_sizes_that_do_not_fit_are_refused(pretrained, width, height, side):
    """Before anything is loaded, with the nearest size that does."""
    with pytest.raises(ValueError, match=f"{side} must be a multiple of 64 .* (128|64) is the nearest"):
        check_size(pretrained(), width, height)


def test_sizes_that_fit_pass(pretrained):
    for width, height in [(0, 0), (64, 0), (64, 128)]:
        check_size(pretrained(), width, height)


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_a_time_shift_tells_every_pipelines_network_a_lower_level(prepared, draw, family):
    """And steps by the true ones: told what was taken from it again, the network draws what it draws without."""
    model, pipeline, prompts = prepared(family)
    settings, told, back = settings_of(family), [], []

    def network(module, inputs, named):
        name = next((name for name in ("t", "timesteps") if name in named), "timestep")
        timestep = named[name] if name in named else inputs[1]
        told.append(timestep.flatten()[0].double())
        if back:
            timestep = back[len(told) - 1].to(timestep.dtype).expand(timestep.shape)
            if name in named:
                return inputs, {**named, name: timestep}
            return (inputs[0], timestep, *inputs[2:]), named
        return None

    networks = [model.network, *([getattr(pipeline, model.guide_part)] if model.guide_part else [])]
    handles = [each.register_forward_pre_hook(network, with_kwargs=True) for each in networks]
    plain, true = draw(model, pipeline, prompts, settings), told.copy()
    told.clear()
    shifted, low = draw(model, pipeline, prompts, replace(settings, time_shift=20.0)), told.copy()
    if max(true) > 1:  # told as it is; others are told a thousandth of it, or how near the data are
        assert low == [max(0, each - 20) for each in true]
    else:
        plainly, lower = torch.stack(true), torch.stack(low)
        data = float(lower.sum() > plainly.sum())  # told 0 of what they are, or 1; nothing is lower than that
        room = (plainly - data).abs()  # older pipelines of Z-Image end with a step at the data
        torch.testing.assert_close((plainly - lower).abs(), room.clamp(max=0.02), rtol=0.02, atol=0)
    assert not torch.equal(plain, shifted)
    told.clear()
    back.extend(true)
    assert torch.equal(draw(model, pipeline, prompts, replace(settings, time_shift=20.0)), plain)
    for handle in handles:
        handle.remove()
    assert torch.equal(draw(model, pipeline, prompts, settings), plain)
