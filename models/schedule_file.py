"""The noise schedule that a model was trained with, as a file in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..diffusion.schedules import DDPM, FlowMatching, Schedule
from ..files.whole import read_object

SCHEDULE_FILE = "schedule.json"


SCHEDULES: dict[str, type[Schedule]] = {"flow_matching": FlowMatching, "ddpm": DDPM}


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    name = next(name for name, kind in SCHEDULES.items() if isinstance(schedule, kind))
    return {"type": name, **asdict(schedule)}  # type: ignore[call-overload]


def schedule_from_dict(values: Mapping[str, Any]) -> Schedule:
    fields = dict(values)
    return SCHEDULES[fields.pop("type")](**fields)


def load_schedule(folder: Path) -> Schedule | None:
    """The noise schedule that a model folder was trained with, if it says."""
    path = folder / SCHEDULE_FILE
    if not path.is_file():
        return None
    values = read_object(path)
    try:
        return schedule_from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} describes no noise schedule that we know: {error}") from error
