"""JSON that a browser can parse, of whatever a node came up with."""

import json
import math
from typing import Any


def to_text(data: Any) -> str:
    """The data as JSON; numbers that JSON lacks (NaN, infinity) become null, unknown objects become their text."""
    try:
        return json.dumps(data, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(data), allow_nan=False, default=str)


def _finite(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
