"""A workflow as data: read it, convert it, check it, run it. Knows no concrete node and no tensor.

The names below are all that the rest of the house needs.
"""

from .convert import to_prompt
from .describe import describe
from .execute import Executor, Result
from .interrupted import Interrupted
from .object_info import object_info
from .overrides import OverrideError
from .validate import Validation, validate
from .workflow import WorkflowError, is_prompt, load

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
