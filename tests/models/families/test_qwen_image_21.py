"""Qwen-Image 2.1 against diffusers' own pipeline, which is given what reads as ours has it."""

import numpy as np
import pytest
import torch
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.files.weights import save_weights
from comfyui_rollout.models.adapters.formats import to_file, with_unit_scales
from comfyui_rollout.models.adapters.layers import from_peft
from comfyui_rollout.models.adapters.names import names_in
from comfyui_rollout.models.adapters.network import adapter_weights, add_adapter
from comfyui_rollout.models.adapters.saved import settings_metadata
from comfyui_rollout.models.adapters.settings import AdapterSettings, settings_of
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.families.qwen_image_21 import Reader
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.runs.prompt_sampling import SamplingSettings, encode_prompts, sample_prompts, sampling_pipeline
from PIL import Image

KIND = PRETRAINED["qwen_image_21"]
SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
CAPTIONS = ["a cat", "two dogs on a wall", ""]


@pytest.fixture
def both(tiny_pipeline):
    """``both(**options)``: the folder as ours takes it, and diffusers' own pipeline of it."""

    def make(**options):
        folder = tiny_pipeline("qwen_image_21", **options)
        from diffusers import QwenImage21Pipeline

        source = Source(str(folder), storage="fp32")
        info = inspect(source)
        parts = load_parts(source, info, ["text_encoder", "vae", "transformer"]).components
        levels = load_parts(source, info, []).config.sample_sigmas
        reads = {**parts, "processor": Reader(folder / "processor")}
        plain = QwenImage21Pipeline(**reads, sample_sigmas=levels)
        plain.set_progress_bar_config(disable=True)
        return Pretrained(source, info), plain

    return make


def test_captions_are_read_as_by_its_own_pipeline(both):
    """Without what its template says first; shorter ones are padded behind, and an empty one is a space."""
    wired, plain = both()
    tokenizer = plain.processor.tokenizer
    assert plain._drop_idx == len(tokenizer(SYSTEM).input_ids)
    reads = load_parts(wired.source, wired.info, KIND.text_parts)
    assert (reads._drop_idx, reads._img_token_id) == (plain._drop_idx, plain._img_token_id)
    told = KIND.encode_captions(reads, CAPTIONS)
    with torch.no_grad():
        text, mask, _ = plain.encode_prompt(CAPTIONS)
    torch.testing.assert_close(told["text"], text, atol=1e-6, rtol=0)
    assert torch.equal(told["mask"], mask.bool())
    around = len(tokenizer("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n").input_ids)
    assert mask.sum(1).tolist() == [around + max(1, len(tokenizer(caption).input_ids)) for caption in CAPTIONS]
    space = KIND.encode_captions(reads, [" "])["text"][0]
    torch.testing.assert_close(told["text"][2, : len(space)], space, atol=1e-6, rtol=0)
    assert KIND.count_tokens(reads, ["a cat"]) == [5]


def test_images_are_encoded_as_by_its_own_pipeline(both):
    """Opaque ones, which is its fourth channel; each channel of the latents freed of its own mean."""
    wired, plain = both()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert("RGBA")
    with torch.no_grad():
        theirs = plain._encode_vae_image(plain.image_processor.preprocess(picture).unsqueeze(2), None)
        vae = load_parts(wired.source, wired.info, ["vae"]).vae
        ours = KIND.encode_images(vae, torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)
    assert ours.shape == (1, 4, 4, 6)
    torch.testing.assert_close(ours, theirs.squeeze(2), atol=1e-5, rtol=0)


SCHEDULERS = [
    {},
    {"shift_terminal": 0.02},
    {"base_shift": 1.0, "max_shift": 3.0, "time_shift_type": "linear", "base_image_seq_len": 1024},
    {"use_dynamic_shifting": False, "shift": 3.0},
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=["grows", "stretched", "linear", "fixed"])
def test_levels_are_those_of_its_own_pipeline(both, scheduler):
    """Which counts every latent as a token; for several sizes and steps."""
    wired, plain = both(**scheduler)
    for side in (64, 256, 512):
        for steps in (2, 5):
            common = {"height": side, "width": side, "num_inference_steps": steps, "output_type": "latent"}
            plain("a cat", **common)
            ours = wired.info.schedule.at_size((side // 16) ** 2 // 4).sampling_timesteps(steps)
            torch.testing.assert_close(ours / 1000, plain.scheduler.sigmas.double(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("cached", [True, False])
def test_one_call_is_its_own_pipelines(both, cached):
    """What it puts out at each step, from the same latents; with what is kept of the text, or all of it again."""
    wired, plain = both()
    model = load_network(wired.source, wired.info, "cpu")
    model.network.eval()
    calls = []
    plain.transformer.register_forward_hook(
        lambda _, args, given, found: calls.append((given, found[0])), with_kwargs=True
    )
    plain(CAPTIONS, height=64, width=96, num_inference_steps=3, output_type="latent", use_kv_cache=cached)
    assert len(calls) == 3
    for given, found in calls:
        x = plain._unpack_latents(given["hidden_states"], 64, 96, 16).squeeze(2)
        told = {"text": given["encoder_hidden_states"], "mask": given["encoder_hidden_states_mask"].bool()}
        with torch.no_grad():
            ours = ask(model, x, 1000 * given["timestep"], told)
        theirs = plain._unpack_latents(found[:, -24:], 64, 96, 16).squeeze(2)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(("turbo", "steps"), [(False, 3), (True, 4), (True, 3)])
def test_samples_are_those_of_its_own_pipeline(both, turbo, steps, guidance):
    """Guided and not; Turbo at its own levels where as many steps are asked for, else in so many."""
    wired, plain = both(turbo=turbo)
    model = load_network(wired.source, wired.info, "cpu")
    pipeline = sampling_pipeline(wired, model)
    settings = SamplingSettings(steps=steps, guidance=guidance, width=96, height=64, seed=5)
    prompts = encode_prompts(wired, CAPTIONS[:2], "ugly, blurred" if guidance > 1 else None, "cpu")
    drawn = sample_prompts(model, pipeline, prompts, settings, check=lambda: None, progress=lambda *_: None)
    other = {"sigmas": np.linspace(1, 1 / steps, steps)} if turbo and steps != 4 else {}
    common = {"width": 96, "height": 64, "num_inference_steps": steps, "output_type": "pt", **other}
    common |= {"negative_prompt": "ugly, blurred", "true_cfg_scale": guidance} if guidance > 1 else {}
    wanted = [plain(text, **common, generator=torch.Generator().manual_seed(5)).images for text in CAPTIONS[:2]]
    assert wanted[0].shape == (1, 4, 64, 96)
    torch.testing.assert_close(drawn, torch.cat(wanted)[:, :3], atol=1e-4, rtol=0)
    assert len(pipeline.scheduler.timesteps) == steps


@pytest.mark.parametrize("preset", KIND.lora_targets)
def test_a_lora_draws_in_its_own_pipeline_what_it_draws_here(both, tmp_path, preset):
    """As saved for diffusers, and loaded there as people do."""
    wired, plain = both()
    model = load_network(wired.source, wired.info, "cpu")
    add_adapter(model, AdapterSettings("a", rank=4, alpha=2.0, targets=KIND.lora_targets[preset]), seed=0)
    model.prepare_training()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.trained.values():
            weight.normal_(std=0.3, generator=generator)
    adapter = from_peft(adapter_weights(model, "a"), model.network.peft_config["a"].to_dict())
    names, path = names_in(wired), tmp_path / "lora.safetensors"
    settings = settings_of(with_unit_scales(adapter), names.layers, "default").config().to_dict()
    save_weights(
        path, to_file(adapter, "diffusers", names, "transformer"), settings_metadata({"transformer": settings})
    )
    prompts = encode_prompts(wired, CAPTIONS[:1], None, "cpu")
    drawn = sample_prompts(
        model,
        sampling_pipeline(wired, model),
        prompts,
        SamplingSettings(steps=2, guidance=1.0, width=64, height=64, seed=1),
        check=lambda: None,
        progress=lambda *_: None,
    )
    common = {"width": 64, "height": 64, "num_inference_steps": 2, "output_type": "pt"}
    before = plain(CAPTIONS[0], **common, generator=torch.Generator().manual_seed(1)).images
    plain.load_lora_weights(path.parent, weight_name=path.name)
    after = plain(CAPTIONS[0], **common, generator=torch.Generator().manual_seed(1)).images
    torch.testing.assert_close(drawn, after[:, :3], atol=1e-5, rtol=0)
    assert (before - after).abs().max() > 1e-3
