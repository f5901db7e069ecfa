"""Every family of pretrained models keeps the promises of PretrainedModel, so that nobody above asks which it is."""

from inspect import signature

import numpy as np
import pytest
import torch
from comfyui_rollout.diffusion.rollout import Draw, noisy_batch, roll_out
from comfyui_rollout.diffusion.solvers import SOLVERS, ask, rows, solver
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.families.anima_pipeline import resizing
from comfyui_rollout.models.families.flux2 import in_patches, out_of_patches
from comfyui_rollout.models.families.flux3_pipeline import TextProcessor
from comfyui_rollout.models.families.pretrained import CONTROL
from comfyui_rollout.models.families.vae import downscaling
from comfyui_rollout.models.loading.load import load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.ragged import join, texts_of
from comfyui_rollout.runs.prompt_sampling import first_images
from own_networks import READERS

FAMILIES = sorted(PRETRAINED)
ONE_LENGTH = ("sd", "sdxl", "sd3", "flux", "lumina2", "flux2_dev", "flux2_klein", "hidream", "chroma", "longcat_image")
"""Families of which every caption is as long as their encoder reads, as their networks were trained."""
IMAGE_COND = "mode_blocks.image_cond."
"""Blocks of FLUX.3 through which goes what it is shown."""
PRESETS = [(family, preset) for family in FAMILIES for preset in PRETRAINED[family].lora_targets]


@pytest.mark.parametrize("family", FAMILIES)
def test_output_has_the_shape_of_the_latents(batch_of, family):
    """(B, C, H, W) in and out, whatever the network packs; and it sees the latents, the level and the conditioning."""
    model, batch = batch_of(family)
    output = ask(model, batch.x, batch.timestep, batch.conditioning)
    assert output.shape == batch.latents.shape
    others = {name: value.roll(1, 0) for name, value in batch.conditioning.items()}
    assert not torch.equal(output, ask(model, batch.x.flip(0), batch.timestep, batch.conditioning))
    assert not torch.equal(output, ask(model, batch.x, batch.timestep / 2, batch.conditioning))
    assert not torch.equal(output, ask(model, batch.x, batch.timestep, others))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_its_items_one_by_one(batch_of, family):
    """Items of a batch, their masks and their ids do not mix."""
    model, batch = batch_of(family)
    together = ask(model, batch.x, batch.timestep, batch.conditioning)
    for item in range(3):
        only = slice(item, item + 1)
        alone = ask(model, batch.x[only], batch.timestep[only], rows(batch.conditioning, only))
        assert torch.allclose(alone, together[only], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_rollouts(batch_of, family, sampler):
    """Rolled-out latents are finite, and the same alone as in a batch; an item without a rollout stays as it is."""
    model, batch = batch_of(family)
    lengths = torch.tensor([2, 0, 3])
    stride = torch.where(lengths > 0, 20.0, 0.0).double()
    draw = Draw(lengths, batch.timestep + lengths * stride, stride)
    solve = solver(sampler)
    rolled = roll_out(model, batch, draw, solve)
    assert rolled.x.isfinite().all()
    assert rolled.x.shape == batch.x.shape
    assert torch.equal(rolled.x[1], batch.x[1])
    assert (rolled.x[[0, 2]] - batch.x[[0, 2]]).abs().amax((1, 2, 3)).min() > 1e-4
    alone = roll_out(model, one(batch, 2), Draw(*(value[2:3] for value in draw)), solve)
    assert torch.allclose(alone.x[0], rolled.x[2], atol=1e-4)


def one(batch, item):
    """A batch of a single item."""
    only = slice(item, item + 1)
    return noisy_batch(
        batch.latents[only],
        batch.noise[only],
        batch.timestep[only],
        batch.schedule,
        rows(batch.conditioning, only),
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("storage", ["bf16", "fp16"])
def test_half_precision_storage_works_without_autocast(batch_of, live, family, storage):
    """Latents and conditioning are brought to the network's dtype, and the answer comes back in that of the latents."""
    model, batch = batch_of(family)
    exact = ask(model, batch.x, batch.timestep, batch.conditioning)
    half, _ = live(family, storage)
    rough = ask(half, batch.x, batch.timestep, batch.conditioning)
    assert half.dtype in (torch.bfloat16, torch.float16)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_lora_presets_fit_their_networks(live, family, preset):
    """Each name of a preset ends the name of a layer, and a fresh adapter there changes nothing."""
    model, _ = live(family)
    targets = model.lora_targets[preset]
    names = [name for name, _ in model.network.named_modules()]
    names += ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"] if family == "sd3" else []  # 3.5 medium's
    unused = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    assert [name for name in unused if "single_transformer_blocks" not in name] == []
    add_adapter(model, AdapterSettings("new", rank=2, targets=targets), 0)
    layers = [name for name, _ in model.network.named_modules() if name.endswith("lora_A")]
    assert len(layers) > (len(targets) if len(targets) < 20 else 10)
    assert not any(name.startswith("proj_out.") for name in layers)


def layers_inside(network, kind):
    """Names of the linear layers in modules whose class is called ``...kind``: the network's own count."""
    outer = [name for name, module in network.named_modules() if type(module).__name__.endswith(kind)]
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    return {name for name in linear if any(name.startswith(f"{start}.") for start in outer)}


VARIANTS = [*((family, {}) for family in FAMILIES), ("sd3", {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"})]


@pytest.mark.parametrize(
    ("family", "options"), VARIANTS, ids=[f"{family}{len(more) or ''}" for family, more in VARIANTS]
)
def test_presets_miss_no_layer(live, family, options):
    """``attention`` is every linear layer of all attention, ``all`` those of the perceptrons too."""
    model, _ = live(family, **options)
    attention, perceptrons = (layers_inside(model.network, kind) for kind in ("Attention", "FeedForward"))
    assert attention
    for preset, wanted in (("attention", attention), ("all", attention | perceptrons)):
        ends = tuple(f".{target}" for target in model.lora_targets[preset])
        assert [name for name in sorted(wanted) if not f".{name}".endswith(ends)] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_presets_begin_with_attention(family):
    """Every family offers the same two choices at least."""
    presets = PRETRAINED[family].lora_targets
    assert set(presets) >= {"attention", "all"}
    assert set(presets["attention"]) < set(presets["all"])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_an_adapter_with_checkpointing(batch_of, family):
    """Gradient checkpointing changes memory, not gradients."""
    gradients = []
    for checkpointing in (False, True):
        model, batch = batch_of(family)
        if checkpointing:
            model.network.enable_gradient_checkpointing()
        add_adapter(model, AdapterSettings("new", rank=2, targets=model.lora_targets["attention"]), 0)
        model.prepare_training()
        for name, weight in model.trained.items():
            torch.nn.init.normal_(weight.data, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        ask(model, batch.x, batch.timestep, batch.conditioning).square().mean().backward()
        # What the last block of Qwen-Image says of the text, nobody reads, nor what FLUX.3 is not shown.
        unread = ("transformer_blocks.1.attn.to_add_out", "transformer_blocks.1.attn.add_q_proj", IMAGE_COND)
        assert all(weight.grad is not None or name.startswith(unread) for name, weight in model.trained.items())
        gradients.append([weight.grad.clone() for weight in model.trained.values() if weight.grad is not None])
    assert all(torch.allclose(plain, saved, atol=1e-6) for plain, saved in zip(*gradients, strict=True))
    assert max(gradient.abs().max() for gradient in gradients[0]) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_decode_to_images(tiny_pipeline, family):
    """An eighth as high and wide, Qwen-Image 2.1's a sixteenth, and back; scaled and shifted by the VAE's own numbers
    both ways."""
    source = Source(str(tiny_pipeline(family)), storage="fp32")
    info = inspect(source)
    vae = load_parts(source, info, ["vae"]).vae
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = info.kind.encode_images(vae, images)
        assert latents.shape == (2, info.channels, 64 // downscaling(vae.config), 48 // downscaling(vae.config))
        opaque = torch.ones(2, vae.config.get("in_channels", 3) - 3, 64, 48)
        films = torch.cat([images, opaque], dim=1)
        films = films.unsqueeze(2) if info.kind.vae_of_videos else films
        wanted = vae.decode(vae.encode(films).latent_dist.mode()).sample.reshape(2, -1, 64, 48)[:, :3]
        assert torch.allclose(info.kind.decode_latents(vae, latents), wanted, atol=1e-4)
        drawn = [info.kind.encode_images(vae, images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_vae_that_overflows_in_fp16_is_kept_in_fp32(tiny_pipeline):
    """SDXL's VAE makes black images in fp16."""
    source = Source(str(tiny_pipeline("sdxl")), storage="fp16")
    info = inspect(source)
    vae = load_parts(source, info, ["vae"]).vae
    assert vae.dtype == torch.float16
    latents = info.kind.encode_images(vae, torch.zeros(1, 3, 32, 32))
    assert (vae.dtype, latents.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_encoded_without_gradient_and_in_order(told, family):
    """Batch-first, the same alone as in a batch, so that encodings can be cached one by one."""
    together = told(family)
    assert all(len(value) == 3 and not value.requires_grad for value in together.values())
    alone = told(family, ["a cat"])
    for name, value in together.items():
        kept, own = value[0].float(), alone[name][0].float()
        length = own.shape[0] if own.ndim else None  # in a batch it is padded, with zeros
        assert torch.allclose(own, kept[:length] if own.ndim else kept, atol=1e-5)
        assert own.shape == kept.shape or not kept[length:].any()
    assert any(not torch.equal(value[0], value[1]) for value in together.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_encoded_prompts_draw_what_the_prompts_draw(tiny_pipeline, pictures, family):
    """sampling_arguments() stands in for the text: the family's pipeline makes the same image from either."""
    source = Source(str(tiny_pipeline(family)), storage="fp32")
    info = inspect(source)
    kind = info.kind
    pipeline = load_parts(source, info, [*kind.text_parts, "vae", kind.network_part, kind.guide_part])
    pipeline.set_progress_bar_config(disable=True)
    common = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}
    if not info.classes:
        common |= {"height": 32, "width": 48}
    takes_negative = "negative_prompt" in signature(type(pipeline).__call__).parameters
    avoided = "bad" if takes_negative else ""  # FLUX.2 klein's pipeline takes no other text, but any that is encoded
    shown = pictures(1) if kind.sees_control else []
    negative = kind.encode_captions(pipeline, [avoided], True, shown) if kind.negative_prompts else None
    arguments = kind.sampling_arguments(kind.encode_captions(pipeline, ["dog"], pictures=shown), negative)
    common |= {"image": pictures(1)[0]} if kind.control != "none" else {}
    common |= {"max_area": 32 * 48} if family == "flux_kontext" else {}
    text = {"class_labels": [1]} if info.classes else {"prompt": "dog"}
    text |= {"negative_prompt": "bad"} if kind.negative_prompts and takes_negative else {}
    if family == "longcat_image":
        common |= {"enable_prompt_rewrite": arguments.pop("enable_prompt_rewrite")}
    if family == "wan":
        common |= {"num_frames": 1}
        arguments.pop("num_frames")
        text |= {"max_sequence_length": 512}
    images = [
        first_images(pipeline(**each, **common, generator=torch.Generator().manual_seed(0)))
        for each in (arguments, text)
    ]
    assert torch.allclose(images[0], images[1], atol=1e-5)


def mu_of(family, config, tokens, steps):
    """What the family's pipeline gives its scheduler."""
    if family in ("flux2_dev", "flux2_klein"):
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(tokens, steps)
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    names = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
    tokens *= 4 if family == "qwen_image_21" else 1  # which has a token for each latent
    return calculate_shift(tokens, *(config.get(name, otherwise) for name, otherwise in names.items()))


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family not in ("sd", "sdxl", "dit", "wan", "ideogram4")]
)
def test_levels_are_shifted_as_in_the_pipeline(tiny_pipeline, family, tokens):
    """The grid of a sampler at each size of the image, shift and stretch, is that of diffusers' own scheduler."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = tiny_pipeline(family)
    config = dict(PRETRAINED[family].scheduler(folder))
    scheduler, steps = FlowMatchEulerDiscreteScheduler.from_config(config), 50
    given = {"mu": mu_of(family, config, tokens, steps)} if config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), **given)
    ours = inspect(Source(str(folder))).schedule.at_size(tokens).sampling_timesteps(steps)
    torch.testing.assert_close(ours / 1000, scheduler.sigmas.double(), atol=2e-6, rtol=0)


def test_krea2_turbo_is_shifted_alike_at_every_size(tiny_pipeline):
    """Its pipeline gives the scheduler 1.15 whatever the size."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = tiny_pipeline("krea2", turbo=True)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 8, 8), mu=1.15)
    for tokens in (256, 4096):
        ours = inspect(Source(str(folder))).schedule.at_size(tokens).sampling_timesteps(8)
        torch.testing.assert_close(ours / 1000, scheduler.sigmas.double(), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("family", "options", "few"),
    [
        ("zimage", {}, False),
        ("zimage", {"shift": 3.0}, True),
        ("krea2", {}, False),
        ("krea2", {"turbo": True}, True),
        ("qwen_image_21", {}, False),
        ("qwen_image_21", {"turbo": True}, True),
        ("flux", {}, False),
        ("flux", {"guidance": False}, True),
        ("flux2_klein", {}, False),
        ("chroma", {}, False),
        ("hidream", {}, False),
        ("hidream", {"dev": True}, True),
        ("flux3", {}, False),
    ],
)
def test_models_of_few_steps_are_told_apart(tiny_pipeline, family, options, few):
    """Training undoes what they were distilled for: Load Pretrained says so."""
    assert inspect(Source(str(tiny_pipeline(family, **options)))).few_steps is few


def test_families_that_read_with_a_language_model_read_more_than_clip():
    """What is behind 77 tokens was said to be cut off."""
    assert [name for name in FAMILIES if PRETRAINED[name].longest_text <= 77] == ["dit", "sd", "sdxl"]


def test_flux2_cuts_latents_into_patches_as_its_pipeline_does(tiny_pipeline):
    """The order of the four latents in a patch, and the means of its VAE."""
    from diffusers import Flux2Pipeline

    x = torch.randn(2, 8, 4, 6)
    assert torch.equal(in_patches(x), Flux2Pipeline._patchify_latents(x))
    assert torch.equal(out_of_patches(in_patches(x)), x)
    pipeline = Flux2Pipeline.from_pretrained(tiny_pipeline("flux2_dev"))
    images = torch.rand(1, 3, 64, 48) * 2 - 1
    with torch.no_grad():
        theirs = pipeline._encode_vae_image(images, None)
        ours = PRETRAINED["flux2_dev"].encode_images(pipeline.vae, images)
    torch.testing.assert_close(in_patches(ours), theirs, atol=1e-5, rtol=1e-5)


def test_wan_is_shifted_as_its_scheduler_says_and_not_of_two_networks(tiny_pipeline):
    """Its scheduler is of another kind; of Wan 2.2's two networks each would learn half of the levels."""
    assert inspect(Source(str(tiny_pipeline("wan")))).schedule.shift == 3.0
    with pytest.raises(ValueError, match=r"^Wan 2\.2 A14B has a network for high"):
        inspect(Source(str(tiny_pipeline("wan", two=True))))


@pytest.mark.parametrize("width", [6, 8])
def test_hidream_puts_out_the_same_while_it_is_trained(live, told, width):
    """diffusers' experts take another way then, on which gradients come through, and images come out in pieces."""
    model, info = live("hidream")
    x, timestep = torch.randn(3, info.channels, 8, width), torch.tensor([300.0, 700.0, 150.0])
    conditioning = told("hidream")
    with torch.no_grad():
        evaluated = ask(model, x, timestep, conditioning)
    model.network.train()
    trained = ask(model, x, timestep, conditioning)
    torch.testing.assert_close(trained, evaluated, atol=1e-5, rtol=1e-4)
    trained.square().mean().backward()
    experts = [name for name, weight in model.network.named_parameters() if "experts" in name and "w1" in name]
    assert all(model.network.get_parameter(name).grad is not None for name in experts)
    with pytest.raises(ValueError, match=r"takes oblong images of 128 x 128 pixels' area at most: lower size"):
        ask(model, torch.randn(3, info.channels, 16, 20), timestep, conditioning)


def test_hidream_makes_images_of_the_size_that_was_asked_for(tiny_pipeline):
    """Its own pipeline makes a megapixel of it."""
    source = Source(str(tiny_pipeline("hidream")), storage="fp32")
    info = inspect(source)
    pipeline = load_parts(source, info, [*info.kind.text_parts, "vae", info.kind.network_part])
    pipeline.set_progress_bar_config(disable=True)
    for height, width in ((32, 48), (64, 64)):
        images = pipeline("a cat", height=height, width=width, num_inference_steps=1, output_type="pt").images
        assert images.shape == (1, 3, height, width)


@pytest.mark.parametrize("side", [512, 1024, 2048])
def test_ideogram4_is_trained_on_the_levels_whose_quantiles_it_is_sampled_at(tiny_pipeline, side):
    """The level below which a share of what is drawn lies is the pipeline's own, at each size of the image."""
    folder = tiny_pipeline("ideogram4")
    from diffusers.pipelines.ideogram4.pipeline_ideogram4 import _logit_normal_sigmas, _resolution_aware_mu

    schedule = inspect(Source(str(folder))).schedule.at_size((side // 16) ** 2)
    theirs = _logit_normal_sigmas(8, _resolution_aware_mu(side, side, 0.0), std=1.5).double().flip(0)
    drawn = schedule.sample_timesteps(200_000, torch.Generator().manual_seed(0)) / 1000
    torch.testing.assert_close(drawn.quantile(torch.arange(1, 8).double() / 8), theirs[:-1], atol=4e-3, rtol=0)


def test_ideogram4_draws_what_its_own_pipeline_draws(tiny_pipeline):
    """In words and encoded, guided by its second network; where guidance is 1, without it."""
    folder, kind = tiny_pipeline("ideogram4"), PRETRAINED["ideogram4"]
    from diffusers import Ideogram4Pipeline

    source = Source(str(folder), storage="fp32")
    info, plain = inspect(source), Ideogram4Pipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    told = kind.encode_captions(load_parts(source, info, kind.text_parts), ["a dog", "a white cat"])
    for guidance, parts in ((4.0, [kind.guide_part]), (1.0, [])):
        ours = load_parts(source, info, ["vae", kind.network_part, *parts])
        ours.set_progress_bar_config(disable=True)
        common = {"height": 32, "width": 48, "num_inference_steps": 2, "guidance_scale": guidance, "output_type": "pt"}
        seed = torch.Generator().manual_seed
        found = ours(**kind.sampling_arguments(told, None), **common, generator=seed(0)).images
        wanted = plain(["a dog", "a white cat"], guidance_schedule=None, **common, generator=seed(0)).images
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"^guidance: the network that guides Ideogram 4 is not here: set it to 1"):
        ours("a dog", guidance_scale=4.0, height=32, width=48, num_inference_steps=1)


def test_anima_draws_what_its_own_pipeline_draws(tiny_pipeline):
    """A modular one, which is told words; guided, and where guidance is 1."""
    folder, kind = tiny_pipeline("anima"), PRETRAINED["anima"]
    from diffusers import AnimaModularPipeline, ClassifierFreeGuidance

    source = Source(str(folder), storage="fp32")
    info, plain = inspect(source), AnimaModularPipeline.from_pretrained(folder)
    plain.load_components(dtype=torch.float32)
    plain.set_progress_bar_config(disable=True)
    ours = load_parts(source, info, ["vae", kind.network_part])
    ours.set_progress_bar_config(disable=True)
    reader = load_parts(source, info, kind.text_parts)
    told, avoided = kind.encode_captions(reader, ["a dog", "a cat"]), kind.encode_captions(reader, ["bad", "bad"], True)
    for guidance in (4.0, 1.0):
        plain.update_components(guider=ClassifierFreeGuidance(guidance_scale=guidance))
        common = {"height": 32, "width": 48, "num_inference_steps": 2, "output_type": "pt"}
        seed, negative = torch.Generator().manual_seed, avoided if guidance > 1 else None
        arguments = kind.sampling_arguments(told, negative)
        found = ours(**arguments, guidance_scale=guidance, **common, generator=seed(0)).images
        with resizing():
            words = {"prompt": ["a dog", "a cat"], "negative_prompt": ["bad", "bad"]}
            wanted = plain(**words, **common, generator=seed(0), output="images")
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


LONG = "a photograph of a dog that runs along the beach in the evening, with a red ball between its teeth"
"""Longer than the first window of FLUX.3, of 80 tokens; each letter is one."""


@pytest.fixture
def flux3_pipeline(tiny_pipeline):
    """``flux3_pipeline(guidance)``: diffusers' own, without what writes prompts anew, and with the folder's parts."""
    from diffusers import ClassifierFreeGuidance, Flux3AutoBlocks

    def load(guidance):
        blocks, folder = Flux3AutoBlocks(), tiny_pipeline("flux3")
        blocks.sub_blocks.pop("prompt_upsampler")
        pipeline = blocks.init_pipeline(str(folder))
        pipeline.load_components(dtype=torch.float32)
        processor = TextProcessor(pipeline.tokenizer)  # AutoProcessor needs torchvision
        pipeline.update_components(tokenizer=processor, guider=ClassifierFreeGuidance(guidance_scale=guidance))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.mark.parametrize("size", [(32, 48), (64, 64)])
@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("shown", [False, True])
def test_flux3_draws_what_its_own_pipeline_draws(tiny_pipeline, flux3_pipeline, pictures, size, guidance, shown):
    """A modular one, which is told words; guided by a text of another window or not, and shown a picture or not."""
    source, kind = Source(str(tiny_pipeline("flux3")), storage="fp32"), PRETRAINED["flux3"]
    info, plain = inspect(source), flux3_pipeline(guidance)
    assert plain.scheduler.config.shift == info.schedule.shift == 6.93
    ours = load_parts(source, info, ["vae", kind.network_part])
    ours.set_progress_bar_config(disable=True)
    reader = load_parts(source, info, kind.text_parts)
    told, avoided = kind.encode_captions(reader, [LONG]), kind.encode_captions(reader, ["bad"], True)
    common = {"height": size[0], "width": size[1], "num_inference_steps": 3, "output_type": "pt"}
    common |= {"image": pictures(1)[0]} if shown else {}
    seed, negative = torch.Generator().manual_seed, avoided if guidance > 1 else None
    arguments = kind.sampling_arguments(told, negative)
    found = ours(**arguments, guidance_scale=guidance, **common, generator=seed(0)).images
    wanted = plain(prompt=LONG, negative_prompt="bad", **common, generator=seed(0), output="images")
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_flux3_reads_as_its_own_pipeline_does(tiny_pipeline, flux3_pipeline):
    """Captions of both windows and the empty one; by the layers and with the padding of its own step."""
    source, kind = Source(str(tiny_pipeline("flux3")), storage="fp32"), PRETRAINED["flux3"]
    told = kind.encode_captions(load_parts(source, inspect(source), kind.text_parts), ["a cat", LONG, ""])
    plain = flux3_pipeline(4.0)
    assert told["mask"].sum(1).tolist() == [80, 160, 80]
    for text, caption in zip(texts_of(told), ("a cat", LONG, ""), strict=True):
        state = plain.blocks.sub_blocks["text_encoder"].init_pipeline()
        state.update_components(text_encoder=plain.text_encoder, tokenizer=plain.tokenizer)
        assert torch.equal(text[None], state(prompt=caption, output="prompt_embeds"))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_flux3_does_not_see_what_is_behind_a_shorter_text(batch_of, checkpointing, shown):
    """Its network has no mask for texts of several lengths: items, and their gradients, are those of each by itself."""
    model, batch = batch_of("flux3", captions=["a cat", LONG, ""])
    shapes = batch.latents.shape
    more = {CONTROL: torch.randn(shapes, generator=torch.Generator().manual_seed(7))} if shown else {}
    told = batch.conditioning | more
    if checkpointing:
        model.network.enable_gradient_checkpointing()
    add_adapter(model, AdapterSettings("new", rank=2, targets=model.lora_targets["all"]), 0)
    model.prepare_training()
    for name, weight in model.trained.items():
        torch.nn.init.normal_(weight.data, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    together = ask(model, batch.x, batch.timestep, told)
    loss = together.square().mean((1, 2, 3)).sum()
    spoilt = told | {"text": told["text"].masked_fill(~told["mask"][..., None], 7.0)}
    ask(model, batch.x, batch.timestep, rows(spoilt, slice(0, 1)))  # another length before the backward pass
    loss.backward()
    found = {name: weight.grad for name, weight in model.trained.items()}
    assert [name for name, grad in found.items() if grad is None and not name.startswith(IMAGE_COND)] == []
    assert shown == all(grad is not None for grad in found.values())
    for weight in model.trained.values():
        weight.grad = None
    for item in range(3):
        only = slice(item, item + 1)
        alone = ask(model, batch.x[only], batch.timestep[only], rows(spoilt, only))
        torch.testing.assert_close(alone, together[only], atol=1e-5, rtol=1e-5)
        alone.square().mean((1, 2, 3)).sum().backward()
    for name, weight in model.trained.items():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, found[name], atol=1e-6, rtol=1e-4)


def test_flux3_of_few_steps_is_refused(tiny_pipeline):
    """It is told where each step ends; its pipeline says so, and its network's settings do."""
    said = r"is the step-distilled FLUX\.3, .* choose the base model, black-forest-labs/flux-3-image-klein-base$"
    for options in ({"distilled": True}, {"flow_map": True}):
        with pytest.raises(ValueError, match=said):
            inspect(Source(str(tiny_pipeline("flux3", **options))))


@pytest.mark.parametrize("family", [family for family in READERS if family not in ONE_LENGTH])
def test_captions_are_kept_at_their_own_length(told, family):
    """On disk; a batch is padded to its longest, and what is padded changes nothing (as items are the same alone)."""
    long = LONG if family == "flux3" else "a cat that sits on a very long wall"  # which has windows of 80
    short, long = told(family, ["a cat"]), told(family, [long])
    assert short["text"].shape[1] < long["text"].shape[1]
    both = join([short, long])
    assert both["text"].shape[1] == both["mask"].shape[1] == long["text"].shape[1]
    assert both["mask"].sum(1).tolist() == [short["mask"].shape[1], long["mask"].shape[1]]
    assert torch.equal(both["text"][0, : short["text"].shape[1]], short["text"][0])


def test_sdxl_is_told_sizes_as_whole_numbers(told, live):
    """Original size, corner of the crop, final size; exact also where the network computes in bf16."""
    conditioning = told("sdxl")
    assert conditioning["time_ids"].tolist() == [[100, 80, 4, 2, 64, 48]] * 3
    kind = PRETRAINED["sdxl"]
    assert kind.describe_size((1023, 5), (0, 0), (64, 64))["time_ids"].shape == (1, 6)
    seen = []
    model, _ = live("sdxl", "bf16")
    model.network.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    sizes = torch.tensor([[1023, 1021, 1, 3, 1019, 1017]] * 3)
    model(torch.zeros(3, 4, 8, 8), torch.zeros(3), conditioning | {"time_ids": sizes})
    assert torch.equal(seen[0]["added_cond_kwargs"]["time_ids"], sizes)


def test_sd3_does_without_t5(told, live):
    """Zeros stand in for the third encoder, as wide as the network wants them."""
    conditioning = told("sd3", t5=False)
    assert conditioning["text"].shape == (3, 16 + 256, 32)
    assert not conditioning["text"][:, 16:].any()


def test_sd35_is_the_same_family(batch_of):
    """Its second attention and its normalised queries are matters of the network alone."""
    model, batch = batch_of("sd3", dual_attention_layers=(0,), qk_norm="rms_norm")
    assert ask(model, batch.x, batch.timestep, batch.conditioning).isfinite().all()


def test_flux_is_told_its_guidance(batch_of):
    """Only a distilled network is; schnell, which is not, has shorter texts."""
    model, batch = batch_of("flux")
    weak = ask(model, batch.x, batch.timestep, batch.conditioning)
    model.guidance = 3.5
    assert not torch.equal(weak, ask(model, batch.x, batch.timestep, batch.conditioning))
    assert batch.conditioning["text"].shape[1] == 512
    schnell, batch = batch_of("flux", guidance=False)
    plain = ask(schnell, batch.x, batch.timestep, batch.conditioning)
    schnell.guidance = 3.5
    assert torch.equal(plain, ask(schnell, batch.x, batch.timestep, batch.conditioning))
    assert batch.conditioning["text"].shape[1] == 256


def test_flux_can_be_trained_after_it_ran_in_inference_mode(batch_of):
    """ComfyUI runs nodes in inference mode; what is remembered there must not come back in training."""
    model, batch = batch_of("flux")
    with torch.inference_mode():
        ask(model, batch.x, batch.timestep, batch.conditioning)
    ask(model, batch.x, batch.timestep, batch.conditioning).mean().backward()
    assert model.network.x_embedder.weight.grad.isfinite().all()


def test_dit_drops_no_labels_by_itself(batch_of):
    """diffusers' label dropout is off: two forwards in training mode are the same, and no label is a class too many."""
    model, batch = batch_of("dit", timesteps=(300.0,) * 3)
    assert batch.conditioning["label"].tolist() == [0, 1, 1000]
    model.network.train()
    x, label = batch.x[:1].expand(40, -1, -1, -1), batch.conditioning["label"][:1].expand(40)
    outputs = ask(model, x, batch.timestep[:1].expand(40), {"label": label})
    assert torch.allclose(outputs, outputs[:1].expand_as(outputs), atol=1e-6)
    assert model.classes == 1000


def test_dit_without_learned_variance(batch_of):
    model, batch = batch_of("dit", learned_sigma=False)
    assert ask(model, batch.x, batch.timestep, batch.conditioning).shape == batch.x.shape


def test_dit_knows_classes_by_name_and_number(tiny_pipeline):
    """A caption that is neither is refused by name."""
    source = Source(str(tiny_pipeline("dit")))
    info = inspect(source)
    pipeline = load_parts(source, info, ())
    labels = info.kind.encode_captions(pipeline, ["tabby", "dog", "7", " ", "999"])["label"]
    assert labels.tolist() == [0, 1, 7, 1000, 999]
    for caption in ("horse", "1001"):
        with pytest.raises(ValueError, match=f"the caption '{caption}' is no class of this model"):
            info.kind.encode_captions(pipeline, [caption])


def test_lumina_reads_negative_prompts_without_its_system_prompt(tiny_pipeline):
    """So reads its pipeline; a dropped caption is read like an empty negative prompt."""
    source = Source(str(tiny_pipeline("lumina2")), storage="fp32")
    info = inspect(source)
    pipeline = load_parts(source, info, info.kind.text_parts)
    positive = info.kind.encode_captions(pipeline, ["cat", ""])
    negative = info.kind.encode_captions(pipeline, ["cat", ""], negative=True)
    assert positive["mask"].sum(1)[0] > negative["mask"].sum(1)[0]
    assert torch.equal(positive["text"][1], negative["text"][1])
    assert torch.equal(positive["mask"][1], negative["mask"][1])
