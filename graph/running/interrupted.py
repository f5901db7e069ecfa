"""The stop signal, which nodes may raise too."""


class Interrupted(BaseException):
    """The run was told to stop. Not an Exception, so that a node's `except Exception` does not swallow it."""
