"""Guidance in rollouts: the published mixture, in one forward; what is off costs and changes nothing."""

import pytest
import torch
from comfyui_rollout.diffusion.chains import Keeper
from comfyui_rollout.diffusion.noisy_batch import noisy_batch, predict
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, roll_out
from comfyui_rollout.diffusion.rollouts.guidance import TOLD, UNGUIDED, Guidance, unconditional
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, ask, solver

SCHEDULE = FlowMatching()
NEGATIVE = {"caption": torch.zeros(1, 1)}
GUIDE = Guidance(4.5, negative=NEGATIVE)


class Network:
    """Its output depends on the caption and on what it is told of guidance; it remembers how often it was asked."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x, timestep, conditioning):
        self.sizes.append(len(x))
        pull = (
            conditioning["caption"][:, :, None, None]
            + 0.1 * conditioning.get(TOLD, torch.zeros(len(x)))[:, None, None, None]
        )
        return 0.5 * x + 0.001 * timestep[:, None, None, None] + pull


def batch_of(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, count, 1, 2, 2, generator=generator)
    timestep = torch.linspace(100, 600, count, dtype=torch.float64)
    return noisy_batch(latents, noise, timestep, SCHEDULE, {"caption": torch.arange(1.0, count + 1)[:, None]})


def test_it_is_the_published_mixture_in_one_forward():
    """uncond + scale (cond - uncond); both in one batch."""
    network, batch = Network(), batch_of()
    guided = ask(GUIDE.of(network), batch.x, batch.timestep, batch.conditioning)
    assert network.sizes == [10]
    with_caption = ask(network, batch.x, batch.timestep, batch.conditioning)
    without = ask(network, batch.x, batch.timestep, {"caption": torch.zeros(5, 1)})
    torch.testing.assert_close(guided, without + 4.5 * (with_caption - without))


def test_without_guidance_the_network_is_untouched():
    """The very same network, so that nothing changes by a bit."""
    network = Network()
    assert UNGUIDED.of(network) is network
    assert not UNGUIDED.active


def test_what_is_not_named_stays():
    """Sizes of images are told with and without a caption; types stay."""
    told = {"caption": torch.ones(3, 1), "time_ids": torch.arange(18).reshape(3, 6)}
    without = unconditional(told, NEGATIVE)
    assert without["caption"].tolist() == [[0]] * 3
    assert without["time_ids"] is told["time_ids"]


def test_no_caption_is_as_long_as_the_captions():
    """Texts of unequal length: padded where a mask says so, repeated as CLIP's windows are where there is none."""
    row = {"text": torch.ones(1, 2, 3), "mask": torch.ones(1, 2, dtype=torch.bool)}
    told = {"text": torch.rand(2, 4, 3), "mask": torch.ones(2, 4, dtype=torch.bool)}
    without = unconditional(told, row)
    assert without["text"].shape == told["text"].shape
    assert without["mask"].tolist() == [[True, True, False, False]] * 2
    assert not without["text"][:, 2:].any()
    assert torch.equal(unconditional({"text": told["text"]}, {"text": row["text"]})["text"], torch.ones(2, 4, 3))
    tokens = {"tokens": torch.arange(8).reshape(2, 1, 4)}  # of text encoders that are trained: (B, tokenizers, L)
    assert unconditional(tokens, {"tokens": torch.tensor([[[7, 9]]])})["tokens"].tolist() == [[[7, 9, 7, 9]]] * 2
    with pytest.raises(ValueError, match=r"^guidance: no caption is 3 tokens"):
        unconditional({"text": told["text"]}, {"text": torch.ones(1, 3, 3)})


@pytest.mark.parametrize(
    "guide", [GUIDE, Guidance(told=3.5), Guidance(2.0, told=3.5, negative=NEGATIVE)], ids=["cfg", "told", "both"]
)
def test_what_is_known_is_not_asked_again(guide):
    """From the network's own output one forward gives the guided one; a distilled network's own is of no use."""
    network, batch = Network(), batch_of()
    expected = ask(guide.of(network), batch.x, batch.timestep, batch.conditioning)
    output = ask(network, batch.x, batch.timestep, batch.conditioning)
    network.sizes.clear()
    torch.testing.assert_close(
        ask(guide.knowing(output, network), batch.x, batch.timestep, batch.conditioning), expected
    )
    assert network.sizes == [5 if guide.scale == 1 or not guide.told else 10]


def test_a_fresh_rollout_is_guided_and_its_clean_output_is_not():
    """Twice the items in each forward; the loss compares the unguided output with the unguided clean one."""
    batch, network = batch_of(), Network()
    lengths = torch.tensor([2, 0, 1, 2, 0])
    draw = Draw(lengths, batch.timestep + 50 * lengths, torch.where(lengths > 0, 50.0, 0.0).double())
    rolled = roll_out(network, batch, draw, solver("euler"), guide=GUIDE, want_clean_output=True)
    assert network.sizes[:2] == [6, 4]
    places = rolled.rolled.nonzero().flatten()
    expected = roll_out(GUIDE.of(Network()), batch, draw, solver("euler"))
    torch.testing.assert_close(rolled.x, expected.x)
    clean = ask(Network(), batch.teacher_forced, batch.timestep, batch.conditioning)
    torch.testing.assert_close(rolled.clean_output[places], clean[places])


def test_a_clean_output_is_not_told_the_guidance_of_a_rollout():
    """A network that is told its guidance in rollouts alone answers for the loss in a forward of its own."""
    batch, network = batch_of(), Network()
    lengths = torch.tensor([2, 0, 1, 0, 0])
    draw = Draw(lengths, batch.timestep + 50 * lengths, torch.where(lengths > 0, 50.0, 0.0).double())
    guide = Guidance(told=3.5)
    rolled = roll_out(network, batch, draw, solver("euler"), guide=guide, want_clean_output=True)
    clean = ask(Network(), batch.teacher_forced, batch.timestep, batch.conditioning)
    torch.testing.assert_close(rolled.clean_output[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("guide", [GUIDE, Guidance(told=3.5)], ids=["cfg", "told"])
def test_guided_chains_are_guided_rollouts(name, guide):
    """Step for step those of a guided sampler, from the training's own unguided output and one more forward."""
    solve, keeper, network = solver(name), Keeper(), Network()
    plan = RolloutPlan(max_step_offset=3, probability=1.0, step_size=60.0, rollout="persistent")
    seen = 0
    for update in range(8):
        seat = keeper.seat(
            batch_of(seed=update), network, plan, solve, update, torch.Generator().manual_seed(update), guide
        )
        alone = noisy_batch(seat.latents, seat.noise, seat.timestep, SCHEDULE, seat.conditioning)
        fresh = roll_out(guide.of(Network()), alone, Draw(seat.lengths, seat.source, seat.stride), solve)
        torch.testing.assert_close(seat.x, fresh.x, rtol=1e-5, atol=1e-5)
        seen += int(seat.rolled.sum())
        network.sizes.clear()
        predict(network, seat)
        assert len(network.sizes) == 1 + solve.calls
    assert seen > 10
