"""Check one constant of a prompt against its declaration, converting it to the declared type in place."""

import math
from typing import Any

from .validation_errors import Error, error

CONVERT = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
LONG_LIST = 20  # beyond this many options an error does not repeat them


def check_value(
    inputs: dict[str, Any], name: str, kind: Any, options: dict[str, Any], ranges: bool = True
) -> list[Error]:
    """The errors (at most one) of inputs[name]. `ranges` False leaves limits and options to VALIDATE_INPUTS."""
    config = (kind, options)
    try:
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:  # how a list is told from a link
            value = inputs[name] = value["__value__"]
        if isinstance(kind, str) and kind in CONVERT:
            converted = CONVERT[kind](value)
            if isinstance(converted, float) and not math.isfinite(converted):  # no limit would ever stop a NaN
                value = str(converted)  # a browser reads no NaN in the answer
                raise ValueError("not a finite number")
            value = inputs[name] = converted
    except Exception as problem:
        extra = {"input_config": config, "received_value": value, "exception_message": str(problem)}
        message = f"Failed to convert an input value to a {kind} value"
        return [_error("invalid_input_type", message, f"{name}, {value}, {problem}", name, extra)]
    if not ranges:
        return []
    extra = {"input_config": config, "received_value": value}
    if "min" in options and value < options["min"]:
        return [
            _error("value_smaller_than_min", f"Value {value} smaller than min of {options['min']}", name, name, extra)
        ]
    if "max" in options and value > options["max"]:
        return [
            _error("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name, name, extra)
        ]
    return _check_option(name, value, config) if isinstance(kind, list) or kind == "COMBO" else []


def _check_option(name: str, value: Any, config: tuple[Any, dict[str, Any]]) -> list[Error]:
    kind, options = config
    choices = kind if isinstance(kind, list) else options.get("options", [])
    several = isinstance(value, list) and options.get("multiselect", False)
    wrong = [item for item in (value if several else [value]) if item not in choices]
    if not wrong:
        return []
    is_long = len(choices) > LONG_LIST
    listed = f"(list of length {len(choices)})" if is_long else str(choices)
    details = f"{name}: {', '.join(map(repr, wrong))} not in {listed}"
    extra = {"input_config": None if is_long else config, "received_value": value}
    return [_error("value_not_in_list", "Value not in list", details, name, extra)]


def _error(kind: str, message: str, details: str, name: str, extra: dict[str, Any]) -> Error:
    return error(kind, message, details, {"input_name": name} | extra)
