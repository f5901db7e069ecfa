"""Where shards lie: as people name them, in memory, over HTTP."""

import threading

import pytest
from comfyui_rollout.data.data import ItemGenerators
from shard_encoders import same_batches


def test_shards_are_found_as_people_name_them(tars, read):
    """A folder, a pattern, braces, a URL, one file; in the order that was said."""
    for place in (tars, f"{tars}/*.tar", f"{tars}/data-{{000..003}}.tar", f"file://{tars}/data-00*.tar"):
        assert len(read(place).index) == 10
    backwards = read(f"{tars}/data-{{003..000}}.tar")
    assert backwards.index.path(0).name == "नाम9.png"
    assert len(read(tars / "data-000.tar").index) == 3


def test_shards_in_memory_and_over_http(tars, read, served):
    """Any URL that fsspec opens: the same batch."""
    import fsspec

    wanted = read(tars).batch([7, 2], ItemGenerators(0, "data", 0, 2))
    memory = fsspec.filesystem("memory")
    for path in tars.glob("*.tar"):
        memory.pipe(f"/shards/{path.name}", path.read_bytes())
    try:
        same_batches(read("memory://shards/data-*.tar").batch([7, 2], ItemGenerators(0, "data", 0, 2)), wanted)
    finally:
        memory.rm("/shards", recursive=True)
    same_batches(read(served(tars) + "/data-{000..003}.tar").batch([7, 2], ItemGenerators(0, "data", 0, 2)), wanted)


def test_a_protocol_whose_package_is_missing_names_it(read):
    """As fsspec says it: s3 wants s3fs, gs wants gcsfs."""
    from fsspec import register_implementation
    from fsspec.registry import known_implementations

    register_implementation("far", "no_such_package.Files", errtxt="Install farfs to access Far")
    try:
        with pytest.raises(ValueError, match=r"^shards: cannot open 'far://a/b.tar': Install farfs to access Far$"):
            read("far://a/b.tar")
    finally:
        known_implementations.pop("far", None)


def test_a_server_without_ranges_is_refused(tars, read):
    """Whether it says so before anything is read, or sends whole files for parts of them."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Silent(SimpleHTTPRequestHandler):
        says = ""

        def log_message(self, *said):
            pass

        def end_headers(self):
            if self.says:
                self.send_header("Accept-Ranges", self.says)
            super().end_headers()

    for says in ("none", "bytes"):
        handler = partial(type("Handler", (Silent,), {"says": says}), directory=str(tars))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                with pytest.raises(ValueError, match="does not serve parts of files"):
                    read(f"http://127.0.0.1:{server.server_port}/data-000.tar").batch(
                        [0], ItemGenerators(0, "data", 0, 1)
                    )
            finally:
                server.shutdown()
                thread.join()
