"""Ports, addresses, and a server beside something else."""

import json
import socket
import urllib.request

import pytest
from comfyui_rollout.server import CannotServe, address_of, application, listening_socket, serving
from comfyui_rollout.server import serve as serve_module


def test_a_taken_port():
    """One line that says what to do."""
    with listening_socket("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(CannotServe, match=f"port {port} is in use: choose another one with --port"):
            listening_socket("127.0.0.1", port)


@pytest.mark.parametrize("address", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours(address):
    with pytest.raises(CannotServe, match=address):
        listening_socket(address, 0)


def test_no_frontend(monkeypatch):
    """The missing package is named with the command that installs it."""
    monkeypatch.setattr(serve_module, "FRONTEND", "no_such_package")
    with pytest.raises(CannotServe, match=r'pip install "comfyui-rollout\[standalone\]"'):
        serve_module.frontend_folder()


def test_the_command_says_what_is_wrong(monkeypatch, tmp_path, capsys):
    """The command line ends with one line and the code for wrong input where the server cannot start."""
    from comfyui_rollout.__main__ import main

    common = ["serve", "--output", str(tmp_path / "output"), "--device", "cpu"]
    with listening_socket("127.0.0.1", 0) as opened:
        assert main([*common, "--port", str(opened.getsockname()[1])]) == 2
    assert "is in use" in capsys.readouterr().err
    monkeypatch.setattr(serve_module, "FRONTEND", "no_such_package")
    assert main([*common, "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ComfyUI's frontend is not installed")
    assert main([*common, "--port", "0", "--allow-host", "https://studio.example"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --allow-host 'https://studio.example' is not a plain host name")
    assert list(tmp_path.iterdir()) == []


def test_a_server_with_other_names_asks_for_a_token(tmp_path):
    """Behind a reverse proxy others can reach it, although it listens on this machine alone."""
    from contextlib import ExitStack

    from comfyui_rollout import __main__, __version__, _arguments

    typed = ["serve", "--port", "0", "--output", str(tmp_path / "output"), "--device", "cpu"]
    for more, has_token in (([], False), (["--allow-host", "studio.example"], True)):
        with ExitStack() as stack:
            commands = dict.fromkeys(
                ("run", "validate", "convert", "nodes", "serve", "import_config", "clean"), lambda options: 0
            )
            options = _arguments.parser(__version__, **commands).parse_args([*typed, *more])
            *_, address = __main__.studio_on(options, __main__.hosting(options, __main__.Notifier()), stack)
            assert ("?token=" in address) is has_token


def test_addresses_to_open():
    with listening_socket("0.0.0.0", 0) as opened:
        port = opened.getsockname()[1]
        assert address_of(opened) == f"http://127.0.0.1:{port}/"
        assert address_of(opened, "t") == f"http://127.0.0.1:{port}/?token=t"
    if socket.has_ipv6:
        with listening_socket("::1", 0) as opened:
            assert address_of(opened).startswith("http://[::1]:")


def test_beside_something_else(make_studio, prompt):
    """A server on a thread of its own: a job that is submitted from here runs there, with somebody listening."""
    studio = make_studio()
    heard = []
    with listening_socket("127.0.0.1", 0) as opened, serving(application(studio), opened):
        job = studio.submit(prompt, ["2"], observer=lambda kind, data: heard.append(kind))
        assert job.done.wait(20)
        with urllib.request.urlopen(f"{address_of(opened)}api/jobs", timeout=10) as reply:
            assert json.load(reply)["jobs"][0]["id"] == job.id
    assert job.status == "completed"
    assert heard[0] == "execution_start"
    assert heard[-1] == "execution_success"
