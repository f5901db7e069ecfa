"""A look that remembers when it was called."""

from comfyui_rollout.runs.session import Look
from comfyui_rollout.training.optimizers import OptimizerSettings

SETTINGS = OptimizerSettings("sgd", learning_rate=0.1, weight_decay=0.0, beta1=0.0)


class Told(Look):
    """Remembers when it was called."""

    def __init__(self):
        self.calls = []

    def after(self, session):
        self.calls.append(("after", session.reached))

    def read(self, session, rows):
        self.calls.append(("read", [row["step"] for row in rows]))

    def finish(self, session):
        self.calls.append(("finish", session.reached))

    def conclude(self, session):
        self.calls.append(("conclude", session.reached))
