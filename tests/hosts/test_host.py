"""A host that does nothing, and a stop that no node swallows."""

from comfyui_rollout.hosts.host import Host, Interrupted


def test_nobody_is_listening_by_default():
    """The loop can be used from plain Python: a host that does nothing is enough."""
    host = Host()
    host.progress("1", 1, 2)
    host.metrics("1", [])
    host.finish("1")
    host.check_interrupted()
    host.make_room()
    assert not host.wants("noisy")


def test_interrupt_is_not_an_exception():
    """`except Exception` in a node must not swallow the user's stop."""
    assert not issubclass(Interrupted, Exception)
