"""Run a prompt: each node once, in the order of its links, and only what changed since the last prompt."""

import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..checking.validation_errors import type_name
from ..node_class import Classes, is_output
from .cache import Cache
from .dynamic_prompt import DynamicPrompt
from .events import Events, Listener
from .run import NodeFailed, PromptRun


@dataclass
class Result:
    """How a run ended."""

    status: str
    """"success", "error" or "interrupted"."""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{node id: ui dict} of every node that has one, also of those that came from the cache."""
    error: dict[str, Any] | None = None
    """The data of ComfyUI's `execution_error` message, if a node failed."""
    exception: BaseException | None = None
    """What was raised."""
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{node id: {"node_id", "display_node", "parent_node", "real_node_id"}} for the same nodes as `outputs`."""


class Executor:
    """Runs prompts one after another and remembers the last one's outputs.

    A node runs on the thread that calls `run`. While it runs, `progress`, `preview`, `finish` and `send` may be called
    from any thread and for any node of the prompt; between runs they do nothing.
    """

    def __init__(self, mapping: Classes):
        self.mapping = mapping
        self._cache = Cache()
        self._events: Events | None = None
        self._busy = threading.Lock()

    def run(
        self,
        prompt: dict[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        prompt_id: str | None = None,
        extra_data: dict[str, Any] | None = None,
        listener: Listener = lambda kind, data: None,
        interrupt: threading.Event | None = None,
    ) -> Result:
        """Run what `outputs` (by default all output nodes) depend on. The prompt should be a validated one.

        A node's exception ends the run with status "error"; `interrupt`, looked at before each call of a node, with
        "interrupted", and so does any exception once it is set. KeyboardInterrupt and SystemExit propagate otherwise.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this executor is running a prompt already")
        try:
            dynprompt = DynamicPrompt(prompt)
            self._events = Events(prompt_id, dynprompt, listener)
            run = PromptRun(self.mapping, self._cache, dynprompt, self._events, extra_data or {}, interrupt)
            return self._run(run, self._outputs(prompt) if outputs is None else outputs)
        finally:
            self._events = None
            self._busy.release()

    def _outputs(self, prompt: dict[str, Any]) -> list[str]:
        return [node_id for node_id, node in prompt.items() if is_output(self.mapping.get(node.get("class_type")))]

    def _run(self, run: PromptRun, outputs: Sequence[str]) -> Result:
        events = run.events
        events.stamped("execution_start", prompt_id=events.prompt_id)
        run.prepare()
        events.stamped("execution_cached", nodes=run.recall_cached(), prompt_id=events.prompt_id)
        try:
            run.execute(outputs)
        except NodeFailed as failed:
            return self._failed(run, failed)
        events.stamped("execution_success", prompt_id=events.prompt_id)
        return Result("success", run.ui, meta=run.meta)

    def _failed(self, run: PromptRun, failed: NodeFailed) -> Result:
        real_id = run.dynprompt.get_real_node_id(failed.node_id)
        blamed = {
            "prompt_id": run.events.prompt_id,
            "node_id": real_id,
            "node_type": run.dynprompt.original[real_id].get("class_type"),
            "executed": list(run.executed),
        }
        if failed.is_interrupt:
            run.events.stamped("execution_interrupted", **blamed)
            return Result("interrupted", run.ui, None, failed.error, run.meta)
        error = run.events.stamped(
            "execution_error",
            **blamed,
            exception_message=f"{failed.error}\n",
            exception_type=type_name(type(failed.error)),
            traceback=traceback.format_tb(failed.error.__traceback__),
            current_inputs=failed.inputs,
            current_outputs=list(run.dynprompt.original),
        )
        return Result("error", run.ui, error, failed.error, run.meta)

    def progress(self, node_id: str, value: float, maximum: float, image: Any = None) -> None:
        """Report how far a node is, and show an image on it: sends `progress_state`, `preview` and `progress`."""
        if (events := self._events) is not None:
            events.progress(node_id, value, maximum, image)

    def preview(self, node_id: str, image: Any) -> None:
        """Show an image on a node: sends ("preview", {"node_id", "prompt_id", "image"}) with the image as it is."""
        if (events := self._events) is not None:
            events.preview(node_id, image)

    def finish(self, node_id: str) -> None:
        """Report that a node that reported progress is done: sends `progress_state`."""
        if (events := self._events) is not None:
            events.finish(node_id)

    def send(self, kind: str, data: Any) -> None:
        """Send any message to the listener."""
        if (events := self._events) is not None:
            events.send(kind, data)
