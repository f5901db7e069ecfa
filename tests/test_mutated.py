"""Workflows as they come from elsewhere: cut, edited by hand, of other versions, of other packs."""

import copy
import json
import random
from pathlib import Path

import pytest
from comfyui_rollout.__main__ import main

WORKFLOWS = sorted((Path(__file__).parents[1] / "workflows").glob("*.json"))
ODD = (
    *(None, True, False, 0, -1, 1.5, 2**70, float("inf"), float("-inf"), float("nan"), "", "x", "\0"),
    *("犬" * 50, "x" * 5000),
    *([], {}, [[]], [None] * 3, ["1", 0], ["1", -1], ["nowhere", 0], [1, 2, 3], {"__value__": [1]}, {"nodes": []}),
    *(-10, -20, "-10", 10**30, [float("nan"), 0], {"links": {}}),
)  # fmt: skip
COUNT = 300


def places(value, found):
    """All (container, key) pairs of nested JSON."""
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            places(value[key], found)
    return found


def mutate(workflow, chance):
    """Up to six changes at random places: other values, gone, doubled, swapped, renamed, one inside another."""
    for _ in range(chance.randint(1, 6)):
        found = places(workflow, [])
        if not found:
            return workflow
        container, key = chance.choice(found)
        other, other_key = chance.choice(found)
        what = chance.randrange(7)
        if what == 0:
            container[key] = copy.deepcopy(chance.choice(ODD))
        elif what == 1:
            del container[key]
        elif what == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif what == 3:
            container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(container[key])
        elif what == 4 and isinstance(container, dict):
            container[chance.choice((f"{key}x", "", "id", "type", "inputs", "nodes", "links"))] = container.pop(key)
        elif what == 5:
            container[key] = [copy.deepcopy(container[key])]
        elif what == 6:
            container[key] = copy.deepcopy(other[other_key])
    return workflow


def text_of(workflow, chance):
    """The file; some are cut or have a byte changed."""
    data = bytearray(json.dumps(workflow).encode())
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    elif chance.random() < 0.1:
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(10))
def test_mutated_workflows(seed, tmp_path, capsys):
    """300 of them through `validate`: each is valid, or refused with lines that say why; none with a traceback."""
    chance = random.Random(seed)
    codes = []
    for number in range(COUNT // 10):
        source = json.loads(chance.choice(WORKFLOWS).read_text(encoding="utf-8"))
        if chance.random() < 0.4:  # API format
            main(["convert", str(chance.choice(WORKFLOWS))])
            source = json.loads(capsys.readouterr().out)
        path = tmp_path / f"{number}.json"
        path.write_bytes(text_of(mutate(source, chance), chance))
        codes.append(main(["validate", str(path)]))
        printed = capsys.readouterr()
        assert codes[-1] in (0, 2)
        lines = printed.err.splitlines()
        assert bool(lines) is (codes[-1] == 2)
        assert all(line.startswith("error: ") and len(line) < 6000 for line in lines), (seed, number, lines)
    assert 2 in codes
