"""The Rollout node: off to the bit, in evaluation mode, seen and counted."""

import json
from itertools import pairwise

import pytest
import torch
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.diffusion.solvers import integrate, solver
from comfyui_rollout.nodes import DiffusionLoss, ReflexFlowLoss, Rollout
from comfyui_rollout.nodes.rollouts.reference import Reference, wanted_output
from comfyui_rollout.nodes.rollouts.rolling import estimate
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import Run, Step, StepError, Stream

EVERY = {"max_step_offset": 3, "probability": 1.0, "step_size": 50.0, "strategy": "biased_late"}


@pytest.mark.parametrize(
    "rollout",
    [{"max_step_offset": 3, "probability": 0.0}, {"max_step_offset": 0, "probability": 1.0}, {}],
    ids=["probability 0", "offset 0", "defaults"],
)
def test_a_rollout_that_is_off_changes_no_bit(graph, train, same_bits, rollout):
    """Wired but off, the node must not move anybody's random numbers: the weights are those of the graph without it."""
    assert same_bits(train(graph(rollout=rollout)).weights, train(graph()).weights)


@pytest.mark.parametrize(
    "rollout",
    [{"start_step": 3}, {"ramp_steps": 1, "prob_end": 1.0, "start_step": 2}],
    ids=["start_step", "ramp from start_step"],
)
def test_until_rollouts_begin_nothing_differs(graph, train, same_bits, rollout):
    """The first three updates are teacher forcing to the bit; the next ones are not."""
    wired = graph(rollout={**EVERY, **rollout})
    assert same_bits(train(wired, steps=3).weights, train(graph(), steps=3).weights)
    assert not same_bits(train(wired, steps=6).weights, train(graph(), steps=6).weights)


def test_rollouts_change_the_training(graph, train, same_bits):
    """The comparisons above would hold for a node that does nothing at all."""
    assert not same_bits(train(graph(rollout=EVERY)).weights, train(graph()).weights)


@pytest.mark.parametrize("sampler", ["unipc", "euler", "dpm", "rk4", "heun"])
def test_every_sampler_rolls_out(graph, pull, sampler):
    """Items that drew a length move, the others stay where they were; no gradient hangs on them."""
    batch, _ = pull(graph(rollout={**EVERY, "sampler": sampler}).batch)
    assert batch.rolled.any()
    moved = (batch.x != batch.teacher_forced).flatten(1).any(1)
    assert torch.equal(moved, batch.rolled)
    assert batch.x.isfinite().all()
    assert not batch.x.requires_grad


def test_rollouts_are_random_by_seed_node_and_step(graph, pull):
    """The same pull gives the same lengths and latents, another one others."""
    stream = graph(rollout={**EVERY, "strategy": "uniform", "max_step_offset": 100, "step_size": 1.0}).batch
    first, _ = pull(stream)
    again, _ = pull(stream)
    assert torch.equal(first.lengths, again.lengths)
    assert torch.equal(first.x, again.x)
    assert not torch.equal(pull(stream, 1)[0].lengths, first.lengths)


def live(graph, stream):
    run = Run(stream)
    return run, run.value(graph.model).network


def test_dropout_is_off_in_a_rollout_and_on_in_training(graph):
    """The rollout denoises as the sampler will; the forward that is trained keeps its dropout."""
    wired = graph(rollout=EVERY, model={"family": "dit", "width": 32})
    run, network = live(wired, wired.loss)
    network.train()
    modes = []
    network.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    _, *others = Step(run, 0).value(wired.batch).lengths
    assert len(others) == 3
    assert set(modes) == {False}
    Step(run, 1).value(wired.loss)
    assert modes[-1] is True
    assert set(modes[:-1]) == {False}


def test_the_modes_come_back_when_a_rollout_fails(graph):
    """Each module's own mode, also that of a part which was frozen in evaluation mode."""
    wired = graph(rollout=EVERY)
    run, network = live(wired, wired.batch)
    network.train()
    network.conv_in.eval()
    before = [module.training for module in network.modules()]

    def fail(module, inputs):
        raise ValueError("boom")

    network.conv_out.register_forward_pre_hook(fail)
    with pytest.raises(StepError, match=r"^node Rollout \(Rollout\), step 4: boom$"):
        Step(run, 4).value(wired.batch)
    assert [module.training for module in network.modules()] == before
    assert False in before


def test_the_metrics_say_what_was_rolled_out(graph, pull):
    """Probability, share and mean length of this step, and how far the latents drifted."""
    batch, step = pull(graph(rollout=EVERY).batch)
    assert step.metrics["rollout_probability"] == 1.0
    assert step.metrics["rollout_share"] == float(batch.rolled.float().mean()) > 0
    assert step.metrics["rollout_length"] == float(batch.lengths.float().mean())
    assert float(step.metrics["drift"]) > 0


def test_a_ramp_counts_updates(graph, train):
    """The probability in the metrics goes up with the training step."""
    run = train(graph(rollout={**EVERY, "ramp_steps": 2, "prob_start": 0.2, "prob_end": 1.0}), accumulation=2, steps=4)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout_probability"] for row in rows] == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_start_and_ramp_are_shares_of_the_training(graph, train):
    """From half of it on, over a quarter of it, however many steps that is; the later start counts."""
    ramped = {**EVERY, "start": 0.5, "ramp": 0.25, "prob_start": 0.25, "prob_end": 1.0}
    for steps, expected in ((4, [0, 0, 0.25, 1.0]), (8, [0, 0, 0, 0, 0.25, 0.625, 1, 1])):
        run = train(graph(rollout=ramped), steps=steps)
        rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["rollout_probability"] for row in rows] == pytest.approx(expected)
    plan = RolloutPlan(max_step_offset=1, probability=0.5, start=0.5, start_step=7)
    assert [plan.over(steps).start_step for steps in (10, 20)] == [7, 10]
    with pytest.raises(ValueError, match="ramp and ramp_steps"):
        graph(rollout={**EVERY, "ramp": 0.5, "ramp_steps": 3})


def test_rollouts_that_never_begin_are_told(graph, train, caplog):
    """Before the training is paid for, in the log, and on the node; a plan that is off or begins has no such line."""
    caplog.set_level("INFO")
    late = train(graph(rollout={**EVERY, "start_step": 3}), steps=3)
    line = "rollouts never begin: they start at step 3, and the training has 3"
    assert line in late.ui["text"]
    assert line in late.facts["said"]
    assert line in caplog.text
    for rollout in (
        {**EVERY, "start_step": 2},
        {**EVERY, "start": 0.75},
        {"start_step": 9},
        {**EVERY, "ramp_steps": 9},
    ):
        assert not any("never begin" in text for text in train(graph(rollout=rollout), steps=3).ui["text"])


def test_start_step_counts_updates(graph, train):
    """With accumulation too: the first rollout comes in update 2, not in pull 2."""
    run = train(graph(rollout={**EVERY, "start_step": 2}), accumulation=2, steps=4)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout_share"] > 0 for row in rows] == [False, False, True, True]


def test_the_clean_output_is_computed_only_for_whom_it_matters(graph, pull):
    """ReflexFlow's frequency compensation asks for it through its wire; others do not pay for it."""
    for loss, expected in ((ReflexFlowLoss, True), (DiffusionLoss, False)):
        wired = graph(rollout=EVERY, loss=loss)
        run = Run(wired.loss)
        assert (Step(run, 0).value(wired.batch).clean_output is not None) == expected


def test_gradients_reach_all_weights_in_half_precision_too(graph):
    """Autocast caches its copies of the weights: those of the rollout, made without gradient, must not be used."""
    wired = graph(rollout=EVERY)
    run, network = live(wired, wired.loss)
    with torch.autocast("cpu", torch.bfloat16):
        Step(run, 0).value(wired.loss).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_rollout_can_be_seen(graph, host, train):
    """On the node, and as pictures in the run's folder."""
    run = train(graph(rollout=EVERY), steps=3, preview_every=2)
    names = sorted(path.name for path in (run.folder / "rollouts").iterdir())
    assert [name for name in names if "frames" not in name] == ["Rollout_step_000000.png", "Rollout_step_000002.png"]


def test_a_rollout_that_is_off_shows_nothing(graph, host, pull):
    """Two equal rows and a black one say nothing; before start_step the picture is there already."""
    host.wanted.add("rollout")
    for off in ({"max_step_offset": 0}, {"probability": 0.0}):
        pull(graph(rollout={**EVERY, **off}).batch, host=host)
    assert host.told == []
    pull(graph(rollout={**EVERY, "start_step": 5}).batch, host=host)
    assert host.told == [("show", "Rollout", "rollout", 0)]


def test_a_second_rollout_in_a_chain_is_refused(graph, wire):
    """It would throw the first one's latents away, also where the first one is off; beside each other is fine."""
    for rollout in (EVERY, {}):
        wired = graph(rollout=rollout)
        with pytest.raises(ValueError, match=r"^batch: these latents were rolled out already; wire Noisy Batch"):
            wire(Rollout, batch=wired.batch, model=wired.model, unique_id="second", **EVERY)
        wire(Rollout, batch=wired.batch.inputs["batch"], model=wired.model, unique_id="second", **EVERY)


def told(graph, build, **rollout):
    wired = graph()
    (text,) = build(Rollout, batch=wired.batch, model=wired.model, **rollout)["ui"]["text"]
    return text


def test_the_cost_is_said_before_it_is_paid(graph, build):
    """At most, and on average once the ramp is over; rk4 takes four forward passes a step."""
    plan = {"max_step_offset": 2, "ramp_steps": 9, "prob_start": 0.0, "prob_end": 1.0}
    assert told(graph, build, **plan, sampler="euler") == (
        "rollouts take up to 2 more forward passes per training step, at full probability 1.8 on average with 4 items "
        "in all (the batch has 4)"
    )
    assert told(graph, build, **plan, sampler="rk4").startswith("rollouts take up to 8 more forward passes")
    assert told(graph, build) == "no rollouts: max_step_offset or probability is 0"
    flat = {"max_step_offset": 2, "probability": 1.0, "ramp_steps": 9, "prob_end": 0.0}
    assert told(graph, build, **flat) == "no rollouts: prob_start and prob_end are 0"


@pytest.mark.parametrize(("from_noise", "most"), [(True, 666.0), (False, 999.0)])
def test_chains_of_a_single_level_are_told_of(graph, build, from_noise, most):
    """A step that is the whole way leaves nothing to train after it: every place would stay teacher-forced."""
    plan = {"max_step_offset": 2, "probability": 1.0, "rollout": "persistent", "from_noise": from_noise}
    for size, none in ((most, False), (1000.0, True)):
        text = told(graph, build, **plan, step_size=size)
        assert (text == f"no rollouts: from noise to image it is one step of {size:g}; set a smaller step_size") == none


CHAINS = {**EVERY, "rollout": "persistent", "probability": 0.75}


def test_persistent_rollouts_cost_no_forward(graph, build):
    """In a whole training step the network is asked once, by the loss; and that is what the node promises."""
    assert told(graph, build, **CHAINS) == (
        "persistent rollouts at 3 of 4 places of a batch take no forward pass of their own per training step"
    )
    assert told(graph, build, **CHAINS, sampler="rk4").endswith("take 3 more forward passes of these per training step")
    wired = graph(rollout=CHAINS, model={"null_class": True})
    (guided,) = build(Rollout, batch=wired.batch.inputs["batch"], model=wired.model,
                      **{**CHAINS, "sampler": "heun", "guidance": 2.0})["ui"]["text"]  # fmt: skip
    assert guided.endswith("take 3 more forward passes of these per training step")  # without it, and a guided one
    wired = graph(rollout=CHAINS)
    run, network = live(wired, wired.loss)
    sizes = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    for update in range(5):
        Step(run, update).value(wired.loss)
    assert sizes == [4] * 5


def test_persistent_rollouts_go_on_from_step_to_step(graph):
    """Three of the four places have rolled-out latents after the first step, and each is a step further in the next."""
    wired, rolled = graph(rollout=CHAINS), []
    run, _ = live(wired, wired.loss)
    for update in range(12):
        step = Step(run, update)
        step.value(wired.loss)
        batch = step.value(wired.batch)
        assert (batch.stride > 0).tolist() == [True, True, True, False]
        assert step.metrics["rollout_share"] == float(batch.rolled.double().mean())
        assert 0 <= step.metrics["rollout_age"] <= 3
        rolled.append(batch.lengths.tolist())
    assert rolled[0] == [0, 0, 0, 0]
    for before, after in pairwise(rolled):
        assert all(new in (0, old + 1) for old, new in zip(before, after, strict=True))
    assert max(map(max, rolled)) == 3


def test_persistent_rollouts_before_their_start_change_no_bit(graph, train, same_bits):
    """Off, or until start_step, the weights are those of the graph without them; afterwards they are not."""
    plain = train(graph(), steps=4).weights
    for off in ({"start_step": 4}, {"probability": 0.0}, {"max_step_offset": 0}):
        assert same_bits(train(graph(rollout={**CHAINS, **off}), steps=4).weights, plain)
    assert not same_bits(
        train(graph(rollout={**CHAINS, "start_step": 3}), steps=6).weights, train(graph(), steps=6).weights
    )


@pytest.mark.parametrize("sampler", ["unipc", "euler", "dpm", "heun"])
@pytest.mark.parametrize(
    ("loss", "loss_inputs", "options"),
    [
        (DiffusionLoss, {}, {}),
        (
            DiffusionLoss,
            {"target": "trajectory", "target_sampler": "rollout", "reference_weights": "ema"},
            {"ema_decay": 0.5},
        ),
        (ReflexFlowLoss, {}, {}),
    ],
    ids=["original", "trajectory", "reflexflow"],
)
def test_a_run_resumed_in_the_middle_of_chains_is_bit_identical(
    graph, train, same_bits, sampler, loss, loss_inputs, options
):
    """Chains are part of the saved state, their fine paths and solvers' memories too."""
    wired = graph(rollout={**CHAINS, "sampler": sampler}, loss=loss, loss_inputs=loss_inputs)
    whole = train(wired, steps=9, accumulation=2, **options)
    begun = train(wired, steps=4, accumulation=2, **options)
    resumed = train(wired, steps=9, accumulation=2, resume=str(begun.folder), **options)
    assert same_bits(resumed.weights, whole.weights)


def test_without_its_chains_a_resumed_run_would_differ(graph, train, same_bits, monkeypatch):
    """The comparison above would hold for chains that begin anew, if these made no difference."""
    wired = graph(rollout=CHAINS)
    whole, begun = train(wired, steps=9), train(wired, steps=4)
    assert find_state(begun.folder).kept.keys() == {"Rollout"}
    monkeypatch.setattr(Run, "restore_kept", lambda run, kept: None)
    assert not same_bits(train(wired, steps=9, resume=str(begun.folder)).weights, whole.weights)


def test_the_reference_of_chains_costs_the_same_at_any_length(graph, build):
    """Chains of three and of twenty steps: one Heun step of the averaged weights for their share, two forwards."""
    for offset in (3, 20):
        wired = graph(rollout={**CHAINS, "max_step_offset": offset})
        reference = {"target": "trajectory", "reference_sampler": "heun", "reference_steps": 1}
        returned = build(DiffusionLoss, batch=wired.batch, model=wired.model, **reference)
        assert "takes up to 2 more forward passes" in returned["ui"]["text"][0]
        stream = returned["result"][0]
        run, network = live(wired, stream)
        sizes = []
        network.register_forward_pre_hook(lambda module, inputs, sizes=sizes: sizes.append(len(inputs[0])))
        for update in range(4):
            Step(run, update).value(stream)
        assert sizes == [3, 3, 4] * 4


def test_the_life_of_a_chain_is_a_film(graph, train):
    """What is shown of persistent rollouts goes from the source of each to the last level that it trains."""
    run = train(
        graph(rollout={**CHAINS, "from_noise": True, "max_step_offset": 4, "step_size": 200.0}), preview_every=2
    )
    facts = json.loads(next((run.folder / "rollouts").glob("*_000000_frames.json")).read_text())
    assert facts["lengths"] == [4] * 4
    assert facts["timesteps"][0] == [1000.0] * 4
    assert facts["timesteps"][-1] == [200.0] * 4


GUIDED = {**EVERY, "guidance": 3.0}


@pytest.mark.parametrize("family", [{}, {"family": "dit", "width": 32}], ids=["unet", "dit"])
@pytest.mark.parametrize("rollout", [EVERY, CHAINS], ids=["fresh", "persistent"])
def test_guided_rollouts_ask_without_the_class_too(graph, family, rollout):
    """In the same forward, or beside the training forward; the latents differ from those without guidance."""
    states = []
    for guidance in (1.0, 3.0):
        wired = graph(rollout={**rollout, "guidance": guidance}, model={"null_class": True, **family})
        run, network = live(wired, wired.loss)
        torch.nn.init.normal_(list(network.parameters())[-1], std=0.5)
        labels = []
        network.register_forward_pre_hook(
            lambda _, inputs, told, labels=labels: labels.append(told["class_labels"]), with_kwargs=True
        )
        for update in range(3):
            step = Step(run, update)
            step.value(wired.loss)
        states.append(step.value(wired.batch).x)
        assert any((told == 10).any() for told in labels) == (guidance != 1)
    assert not torch.equal(*states)


def test_guidance_without_a_null_class_is_refused(graph, wire, build):
    """A new unet knows none unless it is asked to; one without classes has nothing to be guided to."""
    with pytest.raises(
        ValueError, match=r"^guidance: this model knows no class that stands for none: turn on null_class"
    ):
        graph(rollout=GUIDED)
    with pytest.raises(ValueError, match=r"^guidance: this model is told no class"):
        graph(rollout=GUIDED, model={"class_conditional": False})
    with pytest.raises(ValueError, match=r"^sampling_guidance is for models that were distilled"):
        graph(rollout={**EVERY, "sampling_guidance": 3.5}, model={"null_class": True})
    wired = graph(model={"null_class": True})
    text = build(Rollout, batch=wired.batch, model=wired.model, **GUIDED)["ui"]["text"][0]
    assert text.endswith("each of them twice for guidance")


SOAR = {"max_step_offset": 1, "probability": 1.0, "step_size": 25.0, "sampler": "euler", "keep_base": True}
SOAR |= {"renoise": "same_noise", "renoise_levels": 2, "guidance": 4.5}


def test_copies_are_trained_beside_their_items(graph, build, pull):
    """One loss for each, of which the first are those of the batch without them; one training forward for all."""
    wired = graph(rollout=SOAR, model={"null_class": True}, loss_inputs={"target": "clean"})
    text = build(Rollout, batch=wired.batch.inputs["batch"], model=wired.model, **SOAR)["ui"]["text"][0]
    assert text.endswith("put 8 copies beside the 4 items of a batch, which is then as large as 12")
    run, network = live(wired, wired.loss)
    sizes = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    loss = Step(run, 0).value(wired.loss)
    assert sizes == [8, 12]
    alone = graph(model={"null_class": True})
    torch.testing.assert_close(loss[:4], pull(alone.loss)[0])
    lighter = graph(
        rollout={**SOAR, "copies_weight": 0.25}, model={"null_class": True}, loss_inputs={"target": "clean"}
    )
    light = pull(lighter.loss)[0]
    expected = (loss[:4].sum() + 0.25 * loss[4:].sum()) / (4 + 0.25 * 8)
    torch.testing.assert_close(light.mean(), expected)


@pytest.mark.parametrize("loss", [DiffusionLoss, ReflexFlowLoss])
def test_copies_can_be_trained_with_any_loss(graph, train, loss):
    """ReflexFlow asks for their clean output too; masks, frequency weights and films go with them."""
    options = {"keep_base": True, "max_step_offset": 2, "probability": 0.7, "step_size": 40.0}
    run = train(graph(rollout=options, loss=loss), steps=3, preview_every=1)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"renoise": "same_noise"}, "^renoise is for copies: turn on keep_base"),
        ({"keep_base": True, "rollout": "persistent"}, "^keep_base copies items anew"),
        ({"stochastic": "cps"}, "^stochastic: cps is an Euler step of flow matching in fresh rollouts"),
        ({"stochastic": "flow_sde", "sampler": "euler", "rollout": "persistent"}, "^stochastic: flow_sde is"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(graph, options, message):
    """While wiring, in one line that names the cure."""
    with pytest.raises(ValueError, match=message):
        graph(rollout={**EVERY, **options})


def test_new_noise_makes_rollouts_differ(graph, pull):
    """By seed, node and step, as all noise; each kind differs from the deterministic path."""
    euler = {**EVERY, "sampler": "euler"}
    states = [
        pull(graph(rollout={**euler, "stochastic": kind}).batch)[0].x for kind in ("none", "cps", "flow_sde", "cps")
    ]
    assert torch.equal(states[1], states[3])
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])


def test_the_cost_can_be_told_of_any_batch():
    """Another pack's data set has no batch_size widget: the words are those of a single item."""
    batch = Stream(lambda step, dataset: dataset, {"dataset": Stream(lambda step: None)})
    text = estimate(RolloutPlan(max_step_offset=3, probability=1.0), solver("euler"), batch)
    assert text.endswith("at full probability 1.5 on average with 2 items in all (the batch has 1)")


def test_the_widgets_make_the_plan(graph):
    """Every setting arrives in the plan."""
    settings = {"max_step_offset": 4, "ramp_steps": 9, "prob_start": 0.1, "prob_end": 0.9, "ramp_shape": "cosine"}
    settings |= {"start_step": 2, "strategy": "biased_early", "step_size": 20.0, "probability": 0.3}
    plan = graph(rollout=settings).batch.inputs["plan"]
    assert {name: getattr(plan, name) for name in settings} == settings
    assert Rollout.NODE_ID == "Rollout"


STILL = {"rollout": "none", "probability": 0.5, "max_step_offset": 3, "step_size": 250.0}


def aiming(graph, **rollout):
    return graph(rollout={**STILL, **rollout}, loss_inputs={"target": "trajectory", "reference_sampler": "heun"})


def test_without_a_rollout_latents_stay_teacher_forced(graph, pull):
    """Half of the items stand at the beginning of a step of 250; nothing has moved, and no network was asked."""
    (batch, _), (plain, _) = pull(aiming(graph).batch), pull(graph().batch)
    assert batch.stride.tolist() == [250.0, 250.0, 0.0, 0.0]
    assert not batch.rolled.any()
    for name in ("x", "teacher_forced", "timestep"):
        torch.testing.assert_close(getattr(batch, name), getattr(plain, name), msg=name)


def test_without_a_rollout_from_noise_takes_a_samplers_levels(graph, pull):
    """Those of four steps, the noise among them; x is what teacher forcing has there."""
    wired, seen = aiming(graph, from_noise=True, probability=1.0), set()
    for number in range(8):
        batch, _ = pull(wired.batch, number)
        seen |= set(batch.timestep.tolist())
        torch.testing.assert_close(batch.x, batch.schedule.add_noise(batch.latents, batch.noise, batch.timestep))
    assert seen == {250.0, 500.0, 750.0, 1000.0}


@pytest.mark.parametrize("from_noise", [False, True])
def test_the_target_without_a_rollout_lands_one_heun_step_on(graph, from_noise):
    """An oracle: with the output that is wanted, Euler's step of 250 ends where Heun's does; two forwards in all."""
    wired = aiming(graph, from_noise=from_noise, probability=1.0)
    run, network = live(wired, wired.loss)
    torch.nn.init.normal_(list(network.parameters())[-1], std=0.5)
    model, step = run.value(wired.model), Step(run, 0)
    batch = step.value(wired.batch)
    sizes = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    wanted = wanted_output(step, model, batch, "trajectory", Reference(reference_steps=1, reference_sampler="heun"))
    assert sizes == [4, 4]
    then = (batch.timestep - 250).clamp(min=0)
    ends = integrate(
        model,
        batch.schedule,
        batch.x,
        torch.stack([batch.timestep, then]),
        torch.ones(4, dtype=torch.int64),
        batch.conditioning,
        solver("heun"),
    )
    length = ((batch.timestep - then) / 1000).float().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(batch.x - length * wanted, ends, atol=1e-4, rtol=1e-4)


def test_without_a_rollout_the_sampler_may_be_any(graph, train):
    """Whose memory is empty there: a run with its own target trains."""
    inputs = {"target": "trajectory", "target_sampler": "rollout", "reference_weights": "frozen"}
    assert train(graph(rollout={**STILL, "sampler": "unipc"}, loss_inputs=inputs)).facts["status"] == "finished"


def test_no_rollout_is_for_the_trajectory_alone(graph):
    """With another target the node would do nothing; the remedy is named."""
    with pytest.raises(ValueError, match="choose it, or fresh"):
        graph(rollout=STILL)
