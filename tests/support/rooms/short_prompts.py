"""Short ways to write a prompt, and to read what a run reported."""


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def of(kind, messages):
    return [data for name, data in messages if name == kind]
