"""A workflow as data: read it, convert it, check it, run it. Knows no concrete node and no tensor.

The names below are all that the rest of the house needs.
"""

from .checking.validate import Validation, validate
from .describe import describe
from .object_info import object_info
from .running.execute import Executor, Result
from .running.interrupted import Interrupted
from .workflow.convert import to_prompt
from .workflow.overrides import OverrideError
from .workflow.workflow import WorkflowError, is_prompt, load

__all__ = [
    "Executor",
    "Interrupted",
    "OverrideError",
    "Result",
    "Validation",
    "WorkflowError",
    "describe",
    "is_prompt",
    "load",
    "object_info",
    "to_prompt",
    "validate",
]
