"""Which items make up a batch, and reading them ahead."""

import subprocess
import sys
import threading

import pytest
import torch
from comfyui_rollout.data.data import (
    Batch,
    DatasetInfo,
    Digits,
    EpochOrders,
    Group,
    ItemGenerators,
    Loader,
    items_of_batch,
    next_batch,
    plan_batch,
    whose_turn,
)
from comfyui_rollout.training.stream import Run, Step, Stream


def batches(count, batch_size, number, seed=0, name="data"):
    return [items_of_batch(count, batch_size, index, seed, name) for index in range(number)]


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (10, 4), (3, 8), (1, 2), (7, 1)])
def test_each_epoch_holds_every_item_once(count, batch_size):
    """No image is trained more often than another, also where batches cross the end of an epoch."""
    epochs = 4
    flat = [item for batch in batches(count, batch_size, -(-count * epochs // batch_size)) for item in batch]
    for epoch in range(epochs):
        assert sorted(flat[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_batches_are_full():
    """The batch size is what the widget says, always."""
    assert {len(batch) for batch in batches(10, 4, 9)} == {4}


def test_each_epoch_has_an_order_of_its_own():
    """Images are shuffled anew: the same order again would tie neighbours together."""
    first, second = batches(50, 50, 2)
    assert first != second
    assert first != batches(50, 50, 1, seed=1)[0]
    assert first != batches(50, 50, 1, name="other")[0]


def test_a_batch_depends_on_its_number_only():
    """A resumed run goes on with the batches that it would have seen."""
    once = batches(10, 4, 8)
    again = [items_of_batch(10, 4, index, 0, "data") for index in reversed(range(8))]
    assert once == again[::-1]


def test_two_halves_are_the_whole_batch():
    """Accumulating 2 x 4 goes through the data as 1 x 8 does."""
    assert batches(10, 8, 5) == [a + b for a, b in zip(*[iter(batches(10, 4, 10))] * 2, strict=True)]


@pytest.mark.parametrize("order", [range(6), [3, 4, 5, 0, 1, 2], [2, 2, 5]])
def test_reading_ahead_changes_nothing(numbered, order):
    """The thread that reads ahead hands out exactly what reading directly would."""
    loader, direct = (Loader(numbered(10), 4, 7, "data") for _ in range(2))
    for index in order:
        ahead, now = loader.batch(index), direct._read(index)
        assert torch.equal(ahead.latents, now.latents)
        assert torch.equal(ahead.conditioning["draw"], now.conditioning["draw"])


def test_the_next_batch_is_read_while_the_step_runs(numbered):
    """Disk and processor work at the same time: batch 1 is there before anybody asks for it."""
    dataset, read = numbered(10), threading.Event()
    plain = dataset.batch

    def batch(items, generators):
        found = plain(items, generators)
        if len(dataset.asked) == 2:
            read.set()
        return found

    dataset.batch = batch
    Loader(dataset, 4, 0, "data").batch(0)
    assert read.wait(10)


def test_an_image_that_cannot_be_read_fails_its_own_step(numbered):
    """An error on the reading thread comes out in the step that needs the batch, not a step early, not never."""
    dataset = numbered(4)
    plain = dataset.batch

    def batch(items, generators):
        if dataset.asked:
            raise ValueError("cannot read cat.png")
        return plain(items, generators)

    dataset.batch = batch
    loader = Loader(dataset, 4, 0, "data")
    loader.batch(0)
    with pytest.raises(ValueError, match=r"cat\.png"):
        loader.batch(1)


@pytest.fixture
def pinned(monkeypatch):
    """The threads on which tensors were pinned, and how many; without a GPU torch could not do it."""
    threads = []

    def pin_memory(tensor):
        threads.append(threading.current_thread().name)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return threads


def test_batches_are_pinned_for_a_gpu_while_they_are_read_ahead(numbered, pinned):
    """Latents and conditioning, on the reading thread: a pageable copy would make the program wait for the device."""
    plain, fast = Loader(numbered(10), 4, 0, "data").batch(0), Loader(numbered(10), 4, 0, "data", pin=True)
    assert pinned == []
    batch = fast.batch(0)
    assert torch.equal(batch.latents, plain.latents)
    assert torch.equal(batch.conditioning["draw"], plain.conditioning["draw"])
    fast.thread.shutdown()
    assert len(pinned) == 4  # two tensors of each of two batches
    assert all(name.startswith("rollout-data") for name in pinned)


@pytest.mark.parametrize(("device", "pin"), [("cuda:0", True), ("cpu", False)])
def test_only_a_gpu_needs_pinned_batches(numbered, monkeypatch, device, pin):
    """Pinned memory is scarce, and of no use to the processor."""
    made = []

    def loader(*arguments, pin, share):
        made.append(pin)
        return Loader(*arguments, share=share)

    monkeypatch.setattr("comfyui_rollout.data.data.Loader", loader)
    monkeypatch.setattr("comfyui_rollout.data.data.Batch.to", lambda batch, device: batch)
    stream = Stream(lambda step: next_batch(step, numbered(10), 3), node_id="2")
    run = Run(stream)
    run.device = torch.device(device)
    Step(run, 0).value(stream)
    assert made == [pin]


def test_batches_follow_the_pulls(numbered):
    """With gradient accumulation every pull of an update gets new images."""
    dataset = numbered(100)
    stream = Stream(lambda step: next_batch(step, dataset, 3), node_id="2")
    run = Run(stream, seed=5)
    for index in range(4):
        batch = Step(run, index, update=0).value(stream)
        assert batch.latents.flatten().tolist() == items_of_batch(100, 3, index, 5, "2")


def test_batches_made_on_the_thread_can_be_trained_on(numbered):
    """ComfyUI's inference mode must not leak into the latents: autograd refuses inference tensors."""
    with torch.inference_mode():
        batch = Loader(numbered(4), 2, 0, "data").batch(0)
    assert not batch.latents.is_inference()


def test_digits_are_the_real_ones():
    """1,797 handwritten digits in -1..1, ten classes, nearly evenly."""
    digits = Digits()
    info = digits.info
    assert (info.count, info.channels, info.size, info.classes) == (1797, 1, 8, tuple("0123456789"))
    assert digits.latents.shape == (1797, 1, 8, 8)
    assert float(digits.latents.min()) == -1
    assert float(digits.latents.max()) == 1
    counts = torch.bincount(digits.labels, minlength=10)
    assert counts.min() > 170
    batch = digits.batch([0, 1, 2], [])
    assert batch.conditioning["label"].tolist() == [0, 1, 2]


def test_larger_digits_are_the_same_digits():
    """Enlarged, they stay in range and keep what they show."""
    small, large = Digits(8), Digits(16)
    assert large.latents.shape == (1797, 1, 16, 16)
    assert float(large.latents.abs().max()) <= 1
    back = torch.nn.functional.avg_pool2d(large.latents, 2)
    assert float((back - small.latents).abs().mean()) < 0.1


def test_digits_from_inference_mode_can_be_trained_on():
    """The node makes the data set inside ComfyUI's inference mode; its batches must be plain tensors."""
    with torch.inference_mode():
        digits = Digits()
    batch = digits.batch([0, 1], [])
    assert not batch.latents.is_inference()


def test_the_digits_are_those_of_scikit_learn():
    """To the bit, in their order, with their labels; and they need nothing installed."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    digits = Digits()
    assert torch.equal(digits.latents, torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1)
    assert digits.labels.tolist() == labels.tolist()
    program = "import sys; sys.modules['sklearn'] = None; from comfyui_rollout.data.data import Digits; Digits()"
    subprocess.run([sys.executable, "-c", program], check=True)


# Which group has its turn


def turns(weights, batches):
    return [whose_turn(index, weights) for index in range(batches)]


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [0.1, 0.7], [1e-3, 1], [5, 2, 1], [1, 2, 3, 4, 5], [1] * 11])
def test_turns_are_as_even_as_can_be(weights):
    """After any number of batches everybody has had his share, to within a batch or two; and counts on without gaps."""
    counts = [0] * len(weights)
    bound = 0.5 * max(1, len(weights) - 1).bit_length() if len(weights) > 2 else 0.5
    for index, (source, before) in enumerate(turns(weights, 300)):
        assert before == counts[source]
        counts[source] += 1
        shares = [(index + 1) * weight / sum(weights) for weight in weights]
        worst = max(abs(count - share) for count, share in zip(counts, shares, strict=True))
        assert worst <= bound + 1e-9


def test_a_single_source_has_every_turn():
    """And nothing is counted twice."""
    assert turns([0.3], 3) == [(0, 0), (0, 1), (0, 2)]


@pytest.fixture
def grouped():
    groups = (Group("wide", (0, 2, 4), 6, 3), Group("tall", (1, 3), 4, 2))
    return DatasetInfo("images", 10, 1, None, groups=groups)


def test_a_batch_is_of_one_group(grouped):
    """Full, whatever the group's size, and with every item as often as the others."""
    batches_of_it = [plan_batch(grouped, 4, index, 0, "data") for index in range(25)]
    assert all(set(batch) <= {0, 2, 4} or set(batch) <= {1, 3} for batch in batches_of_it)
    assert {len(batch) for batch in batches_of_it} == {4}
    items = [item for batch in batches_of_it for item in batch]
    assert [items.count(item) for item in range(5)] == [20] * 5


def test_a_plan_depends_on_the_batch_only(grouped):
    """Resuming, or reading batches in any order, changes nothing; seed and name do."""
    plan = [plan_batch(grouped, 4, index, 0, "data") for index in range(12)]
    assert [plan_batch(grouped, 4, index, 0, "data") for index in reversed(range(12))] == plan[::-1]
    assert [plan_batch(grouped, 4, index, 1, "data") for index in range(12)] != plan
    assert [plan_batch(grouped, 4, index, 0, "other") for index in range(12)] != plan


def test_orders_that_are_remembered_change_nothing(grouped):
    """Across epochs, back and forth, and for another seed in between; of each group one order is kept."""
    orders = EpochOrders()
    for index in (*range(12), 3, 7, 0):
        for seed in (0, 1):
            assert plan_batch(grouped, 4, index, seed, "data", orders) == plan_batch(grouped, 4, index, seed, "data")
    assert len(orders.drawn) == 2
    drawn = orders(6, 0, "data", 2)
    assert orders(6, 0, "data", 2) is drawn
    assert orders(6, 0, "data", 3) is not drawn


def test_without_groups_nothing_changed():
    """Published runs are repeated bit for bit: one group is the plain order of items."""
    info = DatasetInfo("images", 10, 1, 8)
    assert [plan_batch(info, 4, index, 3, "data") for index in range(9)] == batches(10, 4, 9, seed=3)


def test_generators_go_by_the_position_in_the_run():
    """Who reads the second half of a batch draws what reading all of it would have drawn there."""
    whole, half = ItemGenerators(1, "data", 8, 8), ItemGenerators(1, "data", 12, 4)
    drawn = [torch.rand(2, generator=generator).tolist() for generator in whole]
    assert [torch.rand(2, generator=generator).tolist() for generator in half] == drawn[4:]
    assert len({tuple(numbers) for numbers in drawn}) == 8
    assert len(whole) == 8


def test_masks_and_weights_travel_with_the_batch(pinned):
    """To pinned memory and to the device; a batch without them stays without."""
    batch = Batch(torch.zeros(2, 1, 4, 4), {}, mask=torch.ones(2, 1, 4, 4), weight=torch.tensor([1.0, 0.5]))
    moved = batch.to(torch.device("meta"))
    assert moved.mask.device.type == moved.weight.device.type == "meta"
    assert torch.equal(batch.pinned().mask, batch.mask)
    assert len(pinned) == 3
    bare = Batch(torch.zeros(2, 1, 4, 4), {}).to(torch.device("meta"))
    assert (bare.mask, bare.weight) == (None, None)
