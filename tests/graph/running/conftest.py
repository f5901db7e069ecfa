"""Three node classes that note their calls."""

import pytest


@pytest.fixture
def log():
    return []


@pytest.fixture
def basic(make_class, log):
    """Const(v) -> v, Add(a, b) -> a + b, Show(a) an output node; each notes its calls in `log`."""

    def const(v):
        log.append(("Const", v))
        return (v,)

    def add(a, b):
        log.append(("Add", a, b))
        return (a + b,)

    def show(a):
        log.append(("Show", a))
        return {"ui": {"a": [a]}}

    types = {"required": {"v": ("*", {})}}
    return {
        "Const": make_class(const, types),
        "Add": make_class(add, ["a", "b"]),
        "Show": make_class(show, ["a"], (), OUTPUT_NODE=True),
    }
