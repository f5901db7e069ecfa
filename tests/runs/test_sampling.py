"""Images from a model, and the labels that people write."""

import pytest
import torch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, solver
from comfyui_rollout.runs.sampling import parse_labels, sample

MEAN, STD = 0.5, 0.3


class Knows:
    """The perfect model of pixels drawn from one Gaussian: the right image for some noise is mean + std * noise."""

    latent_shape, device = (1, 2, 2), torch.device("cpu")

    def __init__(self, schedule):
        self.schedule, self.inside, self.asked = schedule, False, []

    def evaluating(self):
        model = self

        class Mode:
            def __enter__(self):
                model.inside = True

            def __exit__(self, *reason):
                model.inside = False

        return Mode()

    def __call__(self, x, timestep, conditioning):
        assert self.inside
        assert not torch.is_grad_enabled()
        self.asked.append((len(x), conditioning))
        alpha, sigma = (level.reshape(-1, 1, 1, 1) for level in self.schedule.coefficients(timestep))
        away = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        clean, noise = MEAN + alpha * STD**2 * away, sigma * away
        return (noise - clean if self.schedule.is_flow_matching else noise).float()


def draw(schedule, name="euler", seed=0, count=3, model=None, steps=10):
    generator = torch.Generator().manual_seed(seed)
    told = {"label": torch.arange(count)}
    model = model or Knows(schedule)
    return sample(
        model, schedule, solver(name), count=count, steps=steps, conditioning=told, generator=generator
    )  # fmt: skip


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("schedule", [FlowMatching(shift=3.0), DDPM()], ids=["flow", "ddpm"])
def test_a_perfect_model_gives_the_right_images(schedule, name):
    """From pure noise to the clean end, with every solver and both kinds of schedule."""
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(draw(schedule, name, steps=200), MEAN + STD * noise, atol=0.05)


def test_one_forward_a_step_for_the_whole_batch():
    """euler with 10 steps asks the model 10 times, each time for all images with their labels."""
    model = Knows(FlowMatching())
    draw(FlowMatching(), model=model)
    assert [count for count, _ in model.asked] == [3] * 10
    assert all(told["label"].tolist() == [0, 1, 2] for _, told in model.asked)


def test_samples_repeat_with_their_seed():
    """Images over time start from the same noise, so that they can be compared."""

    class Still(Knows):
        def __call__(self, x, timestep, conditioning):
            return torch.zeros_like(x)

    first, again, other = (draw(FlowMatching(), seed=seed, model=Still(None)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", [0, 1, 2, 3]),
        ("  ", [0, 1, 2, 3]),
        ("0-3", [0, 1, 2, 3]),
        ("2", [2]),
        ("3, 1,1", [3, 1, 1]),
        ("0, 2-3", [0, 2, 3]),
        (" 1 - 2 ", [1, 2]),
    ],
)
def test_labels_can_be_written_as_people_do(text, labels):
    """Numbers, ranges, or nothing for all of them."""
    assert parse_labels(text, 4) == labels


@pytest.mark.parametrize("text", ["4", "0-4", "cat", "1,,2", "1;2", "3-1", "-1", "1-2-3", "1.5"])
def test_other_labels_are_refused_by_name(text):
    """One line that shows what was written."""
    with pytest.raises(ValueError, match=rf"^labels '{text}': "):
        parse_labels(text, 4)


def test_a_time_shift_tells_the_network_a_lower_level(small_unet):
    """Which it is asked at, and never beyond the data; 0 is plain sampling, to the bit."""
    model, told = small_unet(), []
    torch.nn.init.normal_(list(model.network.parameters())[-1], std=0.5)
    model.network.register_forward_pre_hook(lambda module, inputs: told.append(float(inputs[1][0])))

    def drawn(shift):
        told.clear()
        options = {"count": 1, "steps": 4, "conditioning": {"label": torch.zeros(1, dtype=torch.long)}}
        generator = torch.Generator().manual_seed(0)
        return sample(model, FlowMatching(), solver("euler"), **options, generator=generator, time_shift=shift)

    plain = drawn(0.0)
    assert told == [1000.0, 750.0, 500.0, 250.0]
    shifted = drawn(300.0)
    assert told == [700.0, 450.0, 200.0, 0.0]
    assert not torch.equal(plain, shifted)
    assert torch.equal(drawn(0.0), plain)
