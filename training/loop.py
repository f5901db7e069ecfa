"""The training loop: pull the loss, go back through it, step. Usable from plain Python, without any graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..diffusion import seeds
from ..diffusion.noisy_batch import NoisyBatch
from ..models.model import Model, trained_in
from ..models.sharded import here, whole
from ..models.swapping import NOT_OFFLOADED
from .forward import autocast, training_mode, waiting
from .micro import MicroBatches
from .numbers import mean_of_each
from .one_by_one import OneByOne, check
from .optimizers import OptimizerSettings, average_by_themselves
from .options import AS_USUAL, TrainingOptions
from .sharing import add_up_gradients, check_parts, over_processes
from .stream import FiniteLosses, Number, Run, Step, Stream

NOT_OF_THIS_MODEL = "the loss does not depend on the model that is trained: wire the same model into both"


@dataclass
class Trainer:
    """Everything that one optimizer update needs; made inside the run, so that nothing live is on a wire."""

    run: Run
    loss: Stream
    network: nn.Module
    settings: OptimizerSettings
    steps: int
    options: TrainingOptions = AS_USUAL
    node_id: str = "train"
    done: int = 0
    """Updates done so far, those before a resume included."""
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    """What each forward and its backward happen in: :meth:`~comfyui_rollout.models.model.Model.training`."""

    def __post_init__(self) -> None:
        from diffusers.training_utils import EMAModel

        options = self.options
        self.run.steps, self.run.accumulation = self.steps, options.accumulation
        self.processes = self.run.processes
        self.micro = MicroBatches(self.loss, options)
        if options.compile:
            self.network.compile(dynamic=True)
        self.optimizers = self.settings.optimizers(self.network)
        over_processes(self.network, self.optimizers, self.settings.name, self.processes)
        self.weights = trained_in(self.network)
        self.parameters = list(self.weights.values())
        if options.precision == "fp16" and len(self.optimizers) > 1:
            raise ValueError(
                "muon does not go with fp16, whose overflowing steps must be skipped: choose bf16 or adamw"
            )
        check(self.settings.name, options, self.processes.count)
        self.one_by_one = OneByOne(self.optimizers, self.parameters, self.run.seed) if options.one_by_one else None
        if self.one_by_one and options.fused_backward:
            self.one_by_one.fuse(skip=options.on_bad_step == "skip")
        self.run.schedule_free = average_by_themselves(self.optimizers)
        if self.run.schedule_free and options.ema_decay:
            raise ValueError(f"ema_decay: {self.settings.name} averages the weights by itself: set 0, or choose adamw")
        self.go_to(self.done)
        self.scaler = torch.amp.GradScaler(self.run.device.type, enabled=options.precision == "fp16")
        if options.ema_decay:
            wide: list[Any] = [weight.detach().float() for weight in self.parameters]  # in bf16 it would stand still
            self.run.averaged_weights = EMAModel(wide, decay=options.ema_decay)

    def go_to(self, done: int) -> None:
        """The next update is the one after so many; the learning rate is that one's."""
        self.done = done
        self.schedulers = [self.settings.scheduler(optimizer, self.steps, done) for optimizer in self.optimizers]

    def updates(self, watch_every: int = 0) -> Iterator[Step]:
        """All updates that are still to be done, up to ``steps``; see :func:`train`."""
        while self.done < self.steps:
            number = self.done
            watched = watch_every > 0 and number % watch_every == 0
            # Dropout and the like draw from the global generator: seeded for each step, so that any can be replayed.
            # Each process has its own, for its own items.
            own = (self.processes.rank,) if self.processes.rank else ()
            seed = seeds.derive(self.run.seed, "step", number, *own)
            with training_mode(), seeds.global_seed(seed, self.run.device):
                step = self.update(number, watched)
            yield step

    def update(self, number: int, watched: bool = False) -> Step:
        """One optimizer update: pull, backward, clip, step. Returns the last pull, with the metrics of all of them."""
        step = with_all_numbers(self._pulled(number, watched))
        if number == 0 and not self.options.fused_backward and all(weight.grad is None for weight in self.parameters):
            raise ValueError(NOT_OF_THIS_MODEL)
        self.done = number + 1  # from here on the weights are no longer those of the update before
        with self.run.clock.measure(f"{self.node_id}.optimizer"):
            self._apply(step)
            if self.run.averaged_weights is not None:
                self.run.averaged_weights.step(self.parameters)
        step.report("learning_rate", self.schedulers[0].get_last_lr()[0])
        for scheduler in self.schedulers:
            scheduler.step()
        return step

    def _pulled(self, number: int, watched: bool) -> list[Step]:
        """The batches of one update, each with its gradient; where the memory was too small, in smaller parts."""
        pulls: list[Step] = []
        count = self.options.accumulation
        if self.one_by_one:
            self.one_by_one.begin(number)
        while True:
            try:
                for place in range(count):
                    if place == len(pulls):
                        shown = watched and place == count - 1
                        pulls.append(Step(self.run, number * count + place, update=number, watched=shown))
                    self._pull(pulls[place])
                self.processes.total(0)  # nobody goes on before all have their gradients
                return pulls
            except Exception as error:
                self._begin_again(pulls, error)

    def _pull(self, step: Step) -> None:
        away = self.options.offload_activations
        elsewhere = waiting(self.network, self.run.device) if away else nullcontext()
        with self.around(), autocast(self.run.device, self.options.precision), elsewhere:
            losses = self.micro.losses(step, self._backward)
        step.report("loss", losses)
        step.finite = [finite_losses(step, losses.detach())]

    def _backward(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise ValueError(NOT_OF_THIS_MODEL)
        self.processes.settle()
        if self.options.fused_backward and self.one_by_one:
            self.one_by_one.loss = loss.detach()
            self.done = self.one_by_one.number + 1  # the first weights are changed before the last gradients are there
        with self.run.clock.measure(f"{self.node_id}.backward"), torch.autocast(self.run.device.type, enabled=False):
            self.scaler.scale(loss / self.options.accumulation).backward()

    def _apply(self, step: Step) -> None:
        """Change the weights by their gradients, which are let go."""
        loss = add_up_gradients(self.processes, self.parameters, step)
        if self.options.fused_backward and self.one_by_one:  # they are changed already
            if self.one_by_one.bad is not None:
                step.report("skipped", self.one_by_one.bad)
            return
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        self._clip(step, loss)
        if self.one_by_one:
            for weight in self.parameters:
                self.one_by_one.step(weight)
            return
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()

    def _clip(self, step: Step, loss: Tensor) -> None:
        """Gradients are as long as they may be, and nothing where the loss or one of them is no finite number."""
        limit = self.options.clip_norm
        skips = self.options.on_bad_step == "skip" and not self.scaler.is_enabled()  # fp16's scaler skips by itself
        if not (limit or skips):
            return
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, limit or math.inf))
        if limit:
            step.report("gradient_norm", norm)
        if skips:  # on the device, which nothing waits for; what the optimizer remembers of the steps before goes on
            bad = ~(norm.isfinite() & loss.isfinite())
            for parameter in self.parameters:
                if parameter.grad is not None:
                    here(parameter.grad).masked_fill_(bad.to(parameter.grad.device), 0)
            step.report("skipped", bad)

    def _begin_again(self, pulls: list[Step], error: Exception) -> None:
        """The same update once more, in smaller parts, where the memory was too small for it; else raises the error."""
        with training_mode():
            self.micro.shrink(error, pulls[-1])
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for step in pulls:
            step.forget(self.loss)


def with_all_numbers(pulls: list[Step]) -> Step:
    """The last pull of an update, with the numbers of all of them."""
    step = pulls[-1]
    step.pulls = [pull.numbers for pull in pulls]
    step.numbers = {name: Number(mean) for name, mean in mean_of_each([pull.metrics for pull in pulls]).items()}
    step.finite = [each for pull in pulls for each in pull.finite]
    return step


def finite_losses(step: Step, losses: Tensor) -> FiniteLosses:
    """Which losses of a pull are finite, and the levels and places of their items, where a noisy batch says them."""
    batches = [value for value in step.values() if isinstance(value, NoisyBatch)]
    dealt = [batch for batch in batches if batch.dealt]
    levels, places = batches[-1].timestep if batches else None, dealt[-1].share.places if dealt else None
    return FiniteLosses(step.index, losses.isfinite(), levels, places)


class Resumable(Protocol):
    """What a training goes on from, such as a :class:`~.state.SavedState`."""

    @property
    def step(self) -> int:
        """Updates that were done."""
        ...

    def restore(self, trainer: Trainer) -> None:
        """Put it into a new trainer; raises ValueError, before anything is changed, if it does not fit."""
        ...


def prepare(
    loss: Stream,
    model: Stream,
    settings: OptimizerSettings,
    *,
    steps: int,
    run: Run,
    state: Resumable | None = None,
    node_id: str = "train",
    options: TrainingOptions = AS_USUAL,
    **single: Any,
) -> Trainer:
    """A trainer, ready for its next update: the first one, or the one after ``state``.

    ``single`` options may be given by their names: ``ema_decay=0.99``.
    Raises ValueError where the state is one of another model or optimizer.
    """
    options = replace(options, **single)
    with training_mode():
        live: Model = run.value(model)
        check_parts(live, run.processes)
        if live.swap and options.offload_activations:
            raise ValueError(NOT_OFFLOADED)
        live.prepare_training(torch.bfloat16 if options.weights_dtype == "bf16" else torch.float32)
        done = state.step if state else 0
        trainer = Trainer(
            run, loss, live.network, settings, steps, options, node_id=node_id, done=done, around=live.training
        )
        if state:
            state.restore(trainer)
    run.clock.read()  # making the model is no part of a step
    return trainer


def train(
    loss: Stream,
    model: Stream,
    settings: OptimizerSettings,
    *,
    steps: int,
    run: Run,
    watch_every: int = 0,
    **options: Any,
) -> Iterator[Step]:
    """Train ``model`` on ``loss`` (a stream of one value per sample) and yield each update's last step.

    ``options`` are those of :func:`prepare`: :class:`TrainingOptions`, as such or one by one (``accumulation=4``), and
    a ``state`` to go on from.
    Every ``watch_every``-th step is watched: its nodes show what passes through them.
    """
    yield from prepare(loss, model, settings, steps=steps, run=run, **options).updates(watch_every)
