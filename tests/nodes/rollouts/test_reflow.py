"""The Reflow node: pairs are what the sampler makes, straight, late, and part of the state."""

import pytest
import torch
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.nodes import DDPMSchedule, DiffusionLoss, Reflow
from comfyui_rollout.runs.sampling import sample
from comfyui_rollout.training.stream import Run, Step

EVERY = {"start": 0.0, "probability": 1.0, "pairs": 6, "steps": 3, "sampler": "unipc"}


@pytest.fixture
def reflow(graph, wire):
    """``reflow(start=0.5)``: the canonical graph with a Reflow in it."""

    def connect(model=None, **options):
        wired = graph(model=model)
        wired.batch = wire(Reflow, batch=wired.batch, model=wired.model, **{**EVERY, **options})
        wired.loss = wire(DiffusionLoss, batch=wired.batch, model=wired.model)
        return wired

    return connect


def shaken(wired):
    """A run whose network says something: new ones end in zeros."""
    run = Run(wired.loss)
    run.steps = 10
    torch.nn.init.normal_(list(run.value(wired.model).network.parameters())[-1], std=0.5)
    return run


def test_pairs_are_noise_and_what_the_sampler_makes_of_it(reflow):
    """An oracle: Sample Images' own sampler gives the same image for that noise and class, to 1e-5."""
    wired = reflow(pairs=4)
    run = shaken(wired)
    batch = Step(run, 0).value(wired.batch)
    live = run.value(wired.model)
    for latents, noise, label in zip(batch.latents, batch.noise, batch.conditioning["label"], strict=True):
        told = {"label": label[None]}
        own = noise[None]

        class Given(torch.Generator):
            """Hands out our noise: the sampler draws it itself."""

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", lambda *shape, own=own, **options: own)
            options = {"count": 1, "steps": 3, "conditioning": told, "generator": Given()}
            made = sample(live, wired.schedule, solver("unipc"), **options)
        torch.testing.assert_close(latents[None], made, atol=1e-5, rtol=1e-5)


def test_a_pair_is_trained_on_the_straight_way_between_them(reflow):
    """The batch is teacher-forced on pairs: x lies between noise and image, where the timestep says."""
    wired = reflow()
    batch = Step(shaken(wired), 0).value(wired.batch)
    level = (batch.timestep / 1000).float().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(batch.x, (1 - level) * batch.latents + level * batch.noise)
    assert torch.equal(batch.x, batch.teacher_forced)
    assert not batch.rolled.any()
    assert not batch.x.requires_grad


def test_pairs_are_made_once(reflow):
    """A batch of them a step until there are enough: of six, four and then two; then the network is asked no more."""
    wired = reflow()
    run, asked, known = shaken(wired), [], []
    run.value(wired.model).network.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    for update in range(4):
        asked.clear()
        step = Step(run, update)
        step.value(wired.loss)
        known.append((len(asked), step.metrics["pairs"]))
    assert known == [(4, 4.0), (4, 6.0), (1, 6.0), (1, 6.0)]


def test_a_share_of_the_batch(reflow):
    """Half of the places have pairs, the first ones; the others are the data as Noisy Batch has them."""
    wired, plain = reflow(probability=0.5), reflow(probability=0.0)
    halves, whole = (Step(shaken(each), 0).value(each.batch) for each in (wired, plain))
    assert torch.equal(halves.x[2:], whole.x[2:])
    assert not torch.equal(halves.x[:2], whole.x[:2])


@pytest.mark.parametrize("off", [{"probability": 0.0}, {"start": 1.0}])
def test_off_or_before_its_start_no_bit_changes(reflow, graph, train, same_bits, off):
    """Wired, it moves nobody's random numbers."""
    assert same_bits(train(reflow(**off)).weights, train(graph()).weights)
    assert not same_bits(train(reflow()).weights, train(graph()).weights)


def test_pairs_are_made_with_the_averaged_weights(reflow, train, same_bits):
    """Those of the images that one sees; so the decay makes a difference to the live weights too."""
    runs = [train(reflow(start=0.5, pairs=4), steps=6, ema_decay=decay) for decay in (0.1, 0.9)]
    assert not same_bits(runs[0].weights, runs[1].weights)


def test_a_run_resumed_among_pairs_is_bit_identical(reflow, train, same_bits):
    """The pairs are part of the saved state."""
    whole = train(reflow(), steps=6)
    begun = train(reflow(), steps=6, checkpoint_every=3)
    gone_on = train(reflow(), steps=6, resume=f"{begun.folder}@3")
    assert same_bits(gone_on.weights, whole.weights)


def test_guided_pairs_differ(reflow):
    """With guidance the network is asked without the class too, and the images are others."""
    made = []
    for guidance in (1.0, 4.0):
        wired = reflow({"null_class": True}, guidance=guidance)
        made.append(Step(shaken(wired), 0).value(wired.batch))
    assert torch.equal(made[0].noise, made[1].noise)
    assert not torch.allclose(made[0].latents, made[1].latents)


def test_what_cannot_be_is_refused_in_one_line(graph, wire, reflow):
    """Other schedules, a second rollout, and guidance for a model without a class for none: the remedy is named."""
    plain = graph(schedule=wire(DDPMSchedule))
    with pytest.raises(ValueError, match="wire a flow-matching schedule"):
        wire(Reflow, batch=plain.batch, model=plain.model)
    with pytest.raises(ValueError, match="turn on null_class"):
        reflow(guidance=2.0)
    rolled = graph(rollout={"max_step_offset": 1, "probability": 1.0})
    with pytest.raises(ValueError, match="rolled out already"):
        wire(Reflow, batch=rolled.batch, model=rolled.model)
