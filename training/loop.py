"""The training loop: pull the loss, go back through it, step. Usable from plain Python, without any graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..diffusion import seeds
from ..diffusion.noisy_batch import NoisyBatch
from ..models.model import Model, trained_in
from ..models.sharded import here, let_go, whole
from ..models.swapping import NOT_OFFLOADED, taken_apart
from .micro import MicroBatches
from .numbers import mean_of_each
from .one_by_one import OneByOne, check
from .optimizers import OptimizerSettings, average_by_themselves
from .options import AS_USUAL, Precision, TrainingOptions
from .sharing import add_up_gradients, check_parts, over_processes
from .stream import FiniteLosses, Number, Run, Step, Stream
from .teacher import borrowed

NOT_OF_THIS_MODEL = "the loss does not depend on the model that is trained: wire the same model into both"


@contextmanager
def training_mode() -> Iterator[None]:
    """Gradients are on, even where the caller runs everything in inference mode, as ComfyUI does."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    # No cache of converted weights: one made in a rollout, without gradient, must not serve the training forward, nor
    # live weights the averaged ones.
    with torch.autocast(device.type, dtype, enabled=precision != "fp32", cache_enabled=False):
        yield


@contextmanager
def waiting(network: nn.Module, device: torch.device) -> Iterator[None]:
    """What autograd saves inside, weights aside, waits in main memory (pinned, for a GPU) until it is asked for."""
    parts = (part for weight in (*network.parameters(), *network.buffers()) for part in taken_apart(weight)[0])
    weights = {part.untyped_storage().data_ptr() for part in parts}
    hooks = torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")

    def away(tensor: Tensor) -> Any:
        stays = all(part.untyped_storage().data_ptr() in weights for part in taken_apart(tensor)[0])
        return tensor if stays else hooks.pack_hook(tensor)

    def back(saved: Any) -> Tensor:
        there: Tensor = saved if isinstance(saved, Tensor) else hooks.unpack_hook(saved)
        return there

    with torch.autograd.graph.saved_tensors_hooks(away, back):
        yield


@contextmanager
def averaged(run: Run, network: nn.Module) -> Iterator[None]:
    """The network has the averaged values of its trained weights inside, if the run or its optimizer keeps any."""
    if run.averaged_weights is None and not run.schedule_free:
        yield
        return

    def put(parameters: list[nn.Parameter]) -> None:
        if run.averaged_weights is not None:
            run.averaged_weights.copy_to(parameters)
        for optimizer in run.schedule_free:
            optimizer.eval()

    with other_weights(run, network, put):
        try:
            yield
        finally:
            for optimizer in run.schedule_free:
                optimizer.train()


@contextmanager
def other_weights(run: Run, network: nn.Module, put: Callable[[list[nn.Parameter]], None]) -> Iterator[None]:
    """What is trained has the values inside that ``put`` gives it, and its own behind it."""
    run.processes.settle()  # with weights in parts, what others ask of us is asked with the weights that they have
    let_go(network)
    with borrowed(parameters := list(trained_in(network).values())):
        put(parameters)
        let_go(network)
        try:
            yield
        finally:
            run.processes.settle()
    let_go(network)


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
        self.one_by_one: OneByOne | None = None
        if options.one_by_one:
            self.one_by_one = OneByOne(self.optimizers, self.parameters, self.run.seed)
        if options.fused_backward:
            for weight in self.parameters:
                weight.register_post_accumulate_grad_hook(self._update_at_once)
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
        pulls: list[Step] = []
        if self.one_by_one:
            self.one_by_one.begin(number)
        while True:
            try:
                self._pull_all(number, watched, pulls)
                self.processes.total(0)  # nobody goes on before all have their gradients
                break
            except Exception as error:
                self._begin_again(pulls, error)
        step = pulls[-1]
        step.pulls = [pull.numbers for pull in pulls]
        step.numbers = {name: Number(mean) for name, mean in mean_of_each([pull.metrics for pull in pulls]).items()}
        step.finite = [each for pull in pulls for each in pull.finite]
        if number == 0 and not self.options.fused_backward and all(weight.grad is None for weight in self.parameters):
            raise ValueError(NOT_OF_THIS_MODEL)
        self.done = number + 1  # from here on the weights are no longer those of the update before
        with self.run.clock.measure(f"{self.node_id}.optimizer"):
            self._apply(step)
        step.report("learning_rate", self.schedulers[0].get_last_lr()[0])
        for scheduler in self.schedulers:
            scheduler.step()
        return step

    def _pull_all(self, number: int, watched: bool, pulls: list[Step]) -> None:
        """The batches of one update, each with its gradient. ``pulls`` are those that were made before, if any."""
        count = self.options.accumulation
        for pull in range(count):
            if pull == len(pulls):
                shown = watched and pull == count - 1
                pulls.append(Step(self.run, number * count + pull, update=number, watched=shown))
            step = pulls[pull]
            with self.around(), autocast(self.run.device, self.options.precision), self._elsewhere():
                losses = self.micro.losses(step, self._backward)
            step.report("loss", losses)
            step.finite = [FiniteLosses(step.index, losses.detach().isfinite(), levels_of(step), places_of(step))]

    def _begin_again(self, pulls: list[Step], error: Exception) -> None:
        """The same update once more, in smaller parts, where the memory was too small for it; else raises the error."""
        with training_mode():
            self.micro.shrink(error, pulls[-1])
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for step in pulls:
            step.forget(self.loss)

    def _backward(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise ValueError(NOT_OF_THIS_MODEL)
        self.processes.settle()
        if self.options.fused_backward and self.one_by_one:
            self.last_loss = loss.detach()
            self.done = self.one_by_one.number + 1  # the first weights are changed before the last gradients are there
        with self.run.clock.measure(f"{self.node_id}.backward"), torch.autocast(self.run.device.type, enabled=False):
            self.scaler.scale(loss / self.options.accumulation).backward()

    def _elsewhere(self) -> AbstractContextManager[Any]:
        """What a forward happens in, so that what the backward needs of it waits where there is room."""
        return waiting(self.network, self.run.device) if self.options.offload_activations else nullcontext()

    def _update_at_once(self, weight: Tensor) -> None:
        """In the backward pass: the gradient of this weight is there."""
        assert isinstance(weight, nn.Parameter)
        assert self.one_by_one is not None
        if self.options.on_bad_step == "skip":
            self.one_by_one.step_if_finite(weight, self.last_loss)
        else:
            self.one_by_one.step(weight)

    def _apply(self, step: Step) -> None:
        loss = add_up_gradients(self.processes, self.parameters, step)
        if self.options.fused_backward and self.one_by_one:
            if self.one_by_one.bad is not None:
                step.report("skipped", self.one_by_one.bad)
            self._average()
            return
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        clip_norm = self.options.clip_norm
        skips = self.options.on_bad_step == "skip" and not self.scaler.is_enabled()  # fp16's scaler skips by itself
        if clip_norm or skips:
            norm = whole(nn.utils.clip_grad_norm_(self.parameters, clip_norm or math.inf))
            if clip_norm:
                step.report("gradient_norm", norm)
            if skips:
                self._leave_out(step, norm, loss)
        if self.one_by_one:
            for weight in self.parameters:
                self.one_by_one.step(weight)
        else:
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
                optimizer.zero_grad(set_to_none=True)
            self.scaler.update()
        self._average()

    def _average(self) -> None:
        if self.run.averaged_weights is not None:
            self.run.averaged_weights.step(self.parameters)

    def _leave_out(self, step: Step, norm: Tensor, loss: Tensor) -> None:
        """Of a batch whose loss or gradient is no finite number, nothing is learnt: its gradient counts as zero.

        On the device, which nothing waits for; what the optimizer remembers of the steps before goes on.
        """
        bad = ~(norm.isfinite() & loss.isfinite())
        for parameter in self.parameters:
            if parameter.grad is not None:
                here(parameter.grad).masked_fill_(bad.to(parameter.grad.device), 0)
        step.report("skipped", bad)


def levels_of(step: Step) -> Tensor | None:
    """Where each item of the step's batch trains (B,), on the CPU; None where there is no such batch."""
    batches = [value for value in step.values() if isinstance(value, NoisyBatch)]
    return batches[-1].timestep if batches else None


def places_of(step: Step) -> Tensor | None:
    """The places of the batch's items in the global batch, where this is but a part of it."""
    batches = [value for value in step.values() if isinstance(value, NoisyBatch) and value.dealt]
    return batches[-1].share.places if batches else None


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
