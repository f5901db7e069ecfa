"""SimpleTuner's files: finding them, and reading values that may be written in several ways."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .table import Key

EXAMPLES = Path("config/examples")
UNSET = (None, "", "None", "none", "null")
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class Settings:
    """A JSON object of options, read by a table of keys; it remembers which of them were asked for.

    Keys may have leading dashes, and numbers and switches may be texts. null, "None" and "" mean that an option is not
    set: it then has SimpleTuner's own default.
    """

    def __init__(self, raw: Mapping[str, Any], table: Mapping[str, Key], name: str = "") -> None:
        self.table, self.name = table, name
        self.given: dict[str, Any] = {}
        self.spelled: dict[str, str] = {}
        self.asked: set[str] = set()
        self.dropped = False
        """Nothing of it is wanted, so that nothing has to be said of its keys."""
        for spelling, value in raw.items():
            key = spelling.strip().lstrip("-")
            if key in self.given and self.given[key] != value:
                raise ValueError(f"{self.at(key)} is given twice, with different values: leave one out")
            self.given[key], self.spelled[key] = value, spelling

    def at(self, key: str) -> str:
        """How a message names a key."""
        return f"{self.name}: {key}" if self.name else key

    def is_set(self, key: str) -> bool:
        value = self.given.get(key)
        return not (value is None or (isinstance(value, str) and value.strip() in UNSET))

    def is_default(self, key: str) -> bool:
        """Whether the option is set to what SimpleTuner takes anyway."""
        return self.is_set(key) and self.peek(key) == self.table[key].default

    def __getitem__(self, key: str) -> Any:
        """The value by the table's kind; the default of the table if it is not set. Raises ValueError, naming it."""
        self.asked.add(key)
        return self.peek(key)

    def peek(self, key: str) -> Any:
        """The same for an option that has no place in the graph: it does not count as asked for."""
        entry = self.table[key]
        if not self.is_set(key):
            return entry.default
        try:
            return READERS[entry.kind](self.given[key])
        except ValueError as error:
            raise ValueError(f"{self.at(key)}: {error}") from None


def as_switch(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in TRUE + FALSE:
        raise ValueError(f"{value!r} is neither true nor false")
    return text in TRUE


def as_number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def as_integer(value: Any) -> int:
    number = as_number(value)
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def as_text(value: Any) -> str:
    if isinstance(value, bool | dict | list):
        raise ValueError(f"{value!r} is not a text")
    return str(value).strip()


def as_anything(value: Any) -> Any:
    """The value itself, or what a text means that is JSON."""
    try:
        return json.loads(value, parse_constant=_finite, parse_float=_finite) if isinstance(value, str) else value
    except (RecursionError, ValueError):
        return value


VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

ENVIRONMENT = {
    "CHECKPOINTING_LIMIT": "checkpoints_total_limit",
    "DATALOADER_CONFIG": "data_backend_config",
    "HUB_MODEL_NAME": "hub_model_id",
    "LR_SCHEDULE": "lr_scheduler",
    "MAX_NUM_STEPS": "max_train_steps",
    "MINIMUM_RESOLUTION": "minimum_image_size",
    "MODEL_NAME": "pretrained_model_name_or_path",
    "NUM_EPOCHS": "num_train_epochs",
    "PUSH_CHECKPOINTS": "push_checkpoints_to_hub",
    "RESUME_CHECKPOINT": "resume_from_checkpoint",
    "TRAINING_SEED": "seed",
    "USE_GRADIENT_CHECKPOINTING": "gradient_checkpointing",
    "VALIDATION_STEPS": "validation_step_interval",
}
"""Keys of the variables in config.env that are not just their names in capitals."""

READERS = {
    "switch": as_switch,
    "number": as_number,
    "integer": as_integer,
    "text": as_text,
    "anything": as_anything,
}


@dataclass(frozen=True)
class Files:
    """What SimpleTuner reads of one training."""

    config: Mapping[str, Any]
    backends: tuple[Mapping[str, Any], ...] = ()
    """The data sets, from the file that data_backend_config names."""
    lycoris: Mapping[str, Any] = field(default_factory=dict)
    library: Mapping[str, Any] = field(default_factory=dict)
    """Prompts for sample images by name, from the file that user_prompt_library names."""
    missing: tuple[str, ...] = ()
    """One line for each further file that is named and was not found."""


def read_files(path: Path) -> Files:
    """The configuration and the files that it names. Raises ValueError, one line, for what cannot be read."""
    config = read_config(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: a SimpleTuner configuration is a JSON object, and this is {_kind(config)}")
    missing: list[str] = []
    backends = _named_file(config, "data_backend_config", path, missing)
    if isinstance(backends, dict):  # one data set need not be in a list
        backends = [backends]
    if not isinstance(backends or [], list) or not all(isinstance(entry, dict) for entry in backends or []):
        raise ValueError(f"data_backend_config: a JSON list of data sets is needed, not {_kind(backends)}")
    lycoris, library = (_named_object(config, key, path, missing) for key in ("lycoris_config", "user_prompt_library"))
    return Files(config, tuple(backends or ()), lycoris, library, tuple(missing))


def _named_object(config: Mapping[str, Any], key: str, beside: Path, missing: list[str]) -> dict[str, Any]:
    found = _named_file(config, key, beside, missing)
    if not isinstance(found or {}, dict):
        raise ValueError(f"{key}: a JSON object is needed, not {_kind(found)}")
    return found or {}


def _named_file(config: Mapping[str, Any], key: str, beside: Path, missing: list[str]) -> Any:
    """What is in the file that a key of the configuration names; None, and a line in ``missing``, without one."""
    name = next((value for spelling, value in config.items() if spelling.strip().lstrip("-") == key), None)
    if isinstance(name, dict | list):  # the web interface may write the content itself
        return name
    if not isinstance(name, str) or name.strip() in UNSET:
        return None
    for place in _places(Path(name.strip()), beside):
        if os.path.isfile(place):  # unlike Path's, it is never an error
            return read_json(place)
    missing.append(f"{key}: the file {name!r} was found neither here nor beside the configuration")
    return None


def _places(name: Path, beside: Path) -> Iterator[Path]:
    """SimpleTuner's paths begin at the folder it was started in: look here, above and beside the configuration.

    ``config/examples/`` means ``simpletuner/examples/`` in its checkout.
    """
    above = list(beside.resolve().parents)[:4]
    yield name
    yield from (folder / name for folder in above)
    if name.is_relative_to(EXAMPLES):
        inside = name.relative_to(EXAMPLES)
        yield from (folder / inside for folder in above)
        yield from (folder / "simpletuner" / "examples" / inside for folder in (Path(), *above))
    yield beside.parent / name.name


def read_config(path: Path) -> Any:
    """The options in a config.json, config.toml or config.env. Raises ValueError, one line that names the file."""
    read = {".toml": read_toml, ".env": read_env}.get(path.suffix.lower(), read_json)
    return read(path)


def read_toml(path: Path) -> Any:
    try:
        import tomllib
    except ImportError:
        raise ValueError(f"{path}: TOML is read from Python 3.11 on: use config.json") from None
    try:
        found = tomllib.loads(_text(path), parse_float=_finite)
    except ValueError as error:
        raise ValueError(f"{path}: is not TOML: {error}") from None
    return json.loads(json.dumps(found, default=str))  # a workflow holds no dates


def read_env(path: Path) -> dict[str, Any]:
    """Variables of a shell as options: ``export TRAIN_BATCH_SIZE=2``, and the arguments in TRAINER_EXTRA_ARGS.

    Variables in values are those of the file. Nothing is run.
    """
    found: dict[str, str] = {}
    for word in (word for word in _words(path) if "=" in word):
        name, value = word.split("=", 1)
        value = VARIABLE.sub(lambda match: found.get(match[1] or match[2], ""), value.replace("\\\n", " "))
        adds = name.endswith("+")
        name = name.removesuffix("+")
        found[name] = f"{found.get(name, '')} {value}".strip() if adds else value
    try:
        options = _arguments(shlex.split(found.pop("TRAINER_EXTRA_ARGS", "")))
    except ValueError as error:
        raise ValueError(f"{path}: TRAINER_EXTRA_ARGS: {error}") from None
    named = {ENVIRONMENT.get(name, name.lower()): value for name, value in found.items()}
    return {key: value for key, value in named.items() if f"--{key}" not in options} | options


def _words(path: Path) -> Iterator[str]:
    """The words of a shell's file, without comments; a quotation may go over several lines."""
    begun, pending, wrong = 1, "", ""
    for number, line in enumerate(_text(path).splitlines(keepends=True), 1):
        begun = begun if pending else number
        pending += line
        words = shlex.shlex(pending, posix=True, punctuation_chars=";")
        words.whitespace_split = True
        try:
            found = list(words)
        except ValueError as error:  # a quotation that is still open
            wrong = str(error)
        else:
            pending = ""
            yield from found
    if pending:
        raise ValueError(f"{path}, line {begun}: {wrong}")


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """``--key=value``, ``--key value`` and ``--switch`` as options."""
    options: dict[str, Any] = {}
    key = ""
    for word in words:
        if word.startswith("--"):
            key, _, value = word.partition("=")
            options[key] = value or True
        elif key:
            options[key] = word if options[key] is True else f"{options[key]} {word}"
    return options


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ValueError, one line that names the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{path}: is not JSON: {error.msg} at {where}") from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise ValueError(f"{path}: is not JSON") from None


def _finite(text: str) -> float:
    """A number of a JSON file; raises ValueError for NaN, Infinity and numbers beyond them, as no workflow may hold."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number")
    return number


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
