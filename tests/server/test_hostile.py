"""Requests meant to break out, or to break something: a 4xx with a reason, and the server lives on."""

import io
import json
import os
from random import Random

import pytest
from aiohttp import FormData
from PIL import Image
from yarl import URL

SECRET = "secret.txt"
PATHS = [
    f"../{SECRET}", f"..%2f{SECRET}", f"%2e%2e%2f{SECRET}", f"%252e%252e%252f{SECRET}", f"..%5c{SECRET}",
    f"a%2f..%2f..%2f{SECRET}", "%2fetc%2fpasswd", "C%3a%5cWindows%5cwin.ini", "a%00.json", "nul", "link%2fsecret.txt",
    "file%3astream",
]  # fmt: skip
PLACES = [
    ("GET", "/api/userdata/{}"),
    ("POST", "/api/userdata/{}"),
    ("DELETE", "/api/userdata/{}"),
    ("POST", "/api/userdata/{}/move/x.json"),
    ("POST", "/api/userdata/real.json/move/{}"),
    ("GET", "/api/userdata?dir={}"),
    ("GET", "/api/v2/userdata?path={}"),
    ("GET", "/api/view?filename={}"),
    ("GET", "/api/view?filename=x.png&subfolder={}"),
    ("GET", "/api/view?type=input&filename={}"),
    ("GET", "/api/view_metadata/output?filename={}"),
    ("GET", "/extensions/comfyui-rollout/{}"),
    ("GET", "/docs/{}"),
    ("GET", "/templates/{}"),
    ("GET", "/api/workflow_templates/comfyui-rollout/{}"),
    ("GET", "/rollout/runs/{}"),
    ("GET", "/rollout/runs/{}/files"),
    ("DELETE", "/rollout/runs/{}"),
    ("GET", "/assets/{}"),
    ("GET", "/{}"),
]


@pytest.fixture
def trapped(folders, tmp_path):
    """A secret beside every folder, and a link to it in each of them."""
    (tmp_path / SECRET).write_text("secret")
    for name in folders.__dataclass_fields__:
        folder = getattr(folders, name)
        folder.mkdir(exist_ok=True)
        if os.name == "posix":
            (folder / "link").symlink_to(tmp_path)
    (folders.user / "real.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(("method", "place"), PLACES, ids=lambda value: value)
def test_nothing_outside_is_reached(serve, trapped, method, place):
    """No way of writing a path reads, writes or removes anything beside the served folders."""

    async def check(client, studio):
        for path in PATHS:
            url = URL(str(client.make_url("/")).rstrip("/") + place.format(path), encoded=True)
            reply = await client.session.request(method, url, data=b"{}" if method == "POST" else None)
            text = await reply.text()
            assert 400 <= reply.status < 500, (path, reply.status, text[:100])
            assert text != "secret"
        assert (await client.get("/api/prompt")).status == 200

    before = sorted(trapped.rglob("*"))
    serve(check)
    assert (trapped / SECRET).read_text() == "secret"
    assert (trapped / "user" / "real.json").read_text() == "{}"
    assert sorted(trapped.rglob("*")) == before


NESTED = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = [
    b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b'{"prompt": 7}', b'{"prompt": []}', b'{"prompt": {"1": 7}}',
    b'{"prompt": {"1": {"class_type": "DummyValue", "inputs": []}}}', b'{"prompt": {"1": {"class_type": {}}}}',
    b'{"prompt": {"1": {"class_type": "DummyValue"}}}', b'{"prompt": {}}', NESTED, b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"prompt": {"1": {"class_type": "DummySink", "inputs": {"value": ["1", 1e999]}}}}',
    b'{"prompt": {"1": {"class_type": "DummySink", "inputs": {"value": [[], {}]}}}}',
    b'{"prompt": {}, "number": "x"}', b'{"prompt": {}, "extra_data": 7}', b'{"prompt": {}, "number": NaN}',
    b'{"prompt": {}, "partial_execution_targets": 7}', b'{"prompt": {}, "prompt_id": 7}', b"9" * 10_000,
    json.dumps({"prompt": {str(i): {"class_type": "DummyValue", "inputs": {}} for i in range(10_001)}}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:50]))
def test_bad_prompts(serve, browse, queue, prompt, body):
    """Whatever is queued instead of a graph is refused with a reason in the frontend's shape."""

    async def check(client, studio):
        reply = await client.post("/api/prompt", data=body)
        assert reply.status == 400
        answer = await reply.json()
        assert isinstance(answer["error"]["message"], str)
        assert answer["node_errors"] is not None
        assert (await client.get("/api/jobs")).status == 200
        assert studio.jobs.remaining == 0

    serve(check)


WORDS = ["class_type", "inputs", "1", "2", "value", "x", "n", "seed", "mode", "_meta", "title", "__value__"]
LEAVES = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    2**70,
    "",
    "1",
    "DummyValue",
    "\0",
    ["1", 0],
    ["1", 99],
    ["2", -5],
    "DummySink",
]


def mixture(random, depth=0):
    """Anything at all that is made of the words of a prompt."""
    kind = random.randrange(3) if depth < 4 else 0
    if kind == 0:
        return random.choice(LEAVES)
    if kind == 1:
        return [mixture(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(WORDS): mixture(random, depth + 1) for _ in range(random.randrange(5))}


def test_any_mixture(serve, prompt):
    """Prompts with random parts are queued or refused, and never break the server."""
    random = Random(0)

    async def check(client, studio):
        for _ in range(300):
            body = {"prompt": json.loads(json.dumps(prompt))}
            node = body["prompt"][random.choice("12")]
            for _ in range(random.randrange(1, 4)):
                random.choice([node, node["inputs"] if isinstance(node["inputs"], dict) else node])[
                    random.choice(WORDS)
                ] = mixture(random)
                node.setdefault("inputs", {})
            field = random.choice(["client_id", "extra_data", "number", "partial_execution_targets", "prompt_id", "x"])
            body[field] = mixture(random)
            reply = await client.post("/api/prompt", data=json.dumps(body))
            assert reply.status in (200, 400), json.dumps(body)
            await client.post("/api/queue", json={"clear": True})
            await client.post("/api/interrupt")
        assert (await client.get("/api/jobs")).status == 200

    serve(check)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/settings", b"[1]", 400),
        ("POST", "/api/settings/x", b"{", 400),
        ("POST", "/api/settings/x", b"[" * 500 + b"]" * 500, 400),
        ("POST", "/api/queue", b'{"delete": 7}', 400),
        ("POST", "/api/queue", b'{"delete": [7]}', 400),
        ("POST", "/api/history", b"x", 400),
        ("POST", "/api/interrupt", b"[]", 400),
        ("POST", "/api/jobs/cancel", b"{}", 400),
        ("POST", "/api/jobs/cancel", b'{"job_ids": ["x"]}', 400),
        ("POST", "/api/jobs/x/cancel", b"", 400),
        ("GET", "/api/jobs?status=odd", b"", 400),
        ("GET", "/api/jobs?limit=x", b"", 400),
        ("GET", "/api/jobs?offset=-1", b"", 400),
        ("GET", "/api/jobs?limit=" + "9" * 50, b"", 400),
        ("GET", "/api/jobs?sort_by=odd", b"", 400),
        ("GET", "/api/history?max_items=x", b"", 400),
        ("GET", "/api/view", b"", 400),
        ("GET", "/api/view?filename=x&type=odd", b"", 400),
        ("GET", "/api/view?filename=none.png", b"", 404),
        ("GET", "/internal/files/odd", b"", 400),
        ("POST", "/api/upload/image", b"x", 400),
        ("PATCH", "/internal/logs/subscribe", b"{}", 400),
        ("GET", "/ws?clientId=a%20b", b"", 400),
        ("PUT", "/api/prompt", b"", 405),
        ("GET", "/api/userdata", b"", 400),
        ("GET", "/rollout/runs/none/metrics", b"", 404),
    ],
)
def test_bad_requests(serve, method, path, body, status):
    """Everything else that makes no sense is refused with a reason."""

    async def check(client, studio):
        reply = await client.request(method, path, data=body or None)
        assert reply.status == status
        assert (await reply.json())["error"]
        assert (await client.get("/api/prompt")).status == 200

    serve(check)


def test_large_bodies(serve, monkeypatch):
    """A body above the limit is refused, also when its length is not announced."""
    monkeypatch.setattr("comfyui_rollout.server.guard.bodies.LARGEST_BODY", 1000)
    monkeypatch.setattr("comfyui_rollout.server.guard.bodies.read_bytes.__defaults__", (1000,))

    async def chunks():
        for _ in range(100):
            yield b"x" * 100

    async def check(client, studio):
        for data in (b"x" * 2000, chunks()):
            reply = await client.post("/api/userdata/big.json", data=data)
            assert reply.status == 413
        assert not (studio.folders.user / "big.json").exists()

    serve(check)


def picture(kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "blue").save(buffer, kind)
    return buffer.getvalue()


def form(data, name="a.png", **fields):
    made = FormData(fields)
    made.add_field("image", data, filename=name, content_type="image/png")
    return made


def test_uploads(serve, folders):
    """Pictures are kept once; another one of the same name gets a number, unless it is to replace the first."""

    async def check(client, studio):
        async def upload(*args, **fields):
            reply = await client.post("/api/upload/image", data=form(*args, **fields))
            return reply.status, await reply.json()

        assert await upload(picture()) == (200, {"name": "a.png", "subfolder": "", "type": "input"})
        assert (await upload(picture()))[1]["name"] == "a.png"
        other = picture() + b"tail"
        assert (await upload(other))[1]["name"] == "a (1).png"
        assert (await upload(other, overwrite="true"))[1]["name"] == "a.png"
        assert (folders.input / "a.png").read_bytes() == other
        assert (await upload(picture("JPEG"), "b.jpg", subfolder="s/t", type="temp"))[1]["subfolder"] == "s/t"
        shown = await client.get("/api/view?filename=a.png&type=input")
        assert (shown.status, shown.content_type, await shown.read()) == (200, "image/png", other)
        assert await (await client.get("/internal/files/input")).json() == ["a.png [input]", "a (1).png [input]"]
        left = [path for path in folders.temp.rglob("*") if path.is_file()]
        assert left == [folders.temp / "s" / "t" / "b.jpg"]

    serve(check)


@pytest.mark.parametrize(
    ("data", "name", "fields", "status"),
    [
        (b"<script>", "a.png", {}, 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", {}, 415),
        (picture(), "a.html", {}, 415),
        (picture(), "a.jpg", {}, 415),
        (picture()[:40], "a.png", {}, 415),
        (picture(), "../a.png", {}, 400),
        (picture(), ".a.png", {}, 400),
        (picture(), "nul.png", {}, 400),
        (picture(), "a.png", {"subfolder": "../x"}, 400),
        (picture(), "a.png", {"subfolder": "/etc"}, 400),
        (picture(), "a.png", {"subfolder": "link"}, 400),
        (picture(), "a.png", {"type": "output/../user"}, 400),
        (picture(), "", {}, 400),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_uploads(serve, trapped, data, name, fields, status):
    """What is no picture, or would land elsewhere, is refused and leaves nothing behind."""

    async def check(client, studio):
        reply = await client.post("/api/upload/image", data=form(data, name, **fields))
        assert reply.status == status
        assert (await reply.json())["error"]

    before = sorted(trapped.rglob("*"))
    serve(check)
    assert sorted(trapped.rglob("*")) == before


def test_too_large_an_upload(serve, monkeypatch, folders):
    monkeypatch.setattr("comfyui_rollout.server.routes.files.LARGEST_UPLOAD", 10)

    async def check(client, studio):
        assert (await client.post("/api/upload/image", data=form(picture()))).status == 413

    serve(check)
    assert not list(folders.temp.iterdir())


def test_active_files_are_only_saved(serve, folders):
    """HTML, scripts and drawings from folders that anybody can fill never run in our origin."""
    folders.output.mkdir()
    for name in ("a.html", "a.svg", "a.js", "a.css", "a.xml", "a.xhtml", "a"):
        (folders.output / name).write_text("<script>alert(1)</script>")

    async def check(client, studio):
        for path in folders.output.iterdir():
            reply = await client.get("/view", params={"filename": path.name})
            assert reply.content_type == "application/octet-stream"
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert path.suffix in (".xml", ".xhtml", "") or reply.headers["Content-Disposition"].startswith(
                "attachment"
            )

    serve(check)


def with_alpha(size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGBA", size, (9, 9, 9, 77)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_mask_painted_on_a_picture(serve, folders):
    """As ComfyUI's /upload/mask: the original's colours and texts with the painted alpha; the original stays."""
    from PIL.PngImagePlugin import PngInfo

    (folders.output / "sub").mkdir(parents=True)
    texts = PngInfo()
    texts.add_text("workflow", "{}")
    Image.new("RGB", (8, 8), "red").save(folders.output / "sub" / "o.png", pnginfo=texts)
    before = (folders.output / "sub" / "o.png").read_bytes()

    async def check(client, studio):
        async def upload(data, **fields):
            reply = await client.post("/api/upload/mask", data=form(data, "m.png", **fields))
            return reply.status, await reply.json()

        reference = json.dumps({"filename": "o.png", "subfolder": "sub"})
        found = await upload(with_alpha(), original_ref=reference, subfolder="clipspace", type="input")
        assert found == (200, {"name": "m.png", "subfolder": "clipspace", "type": "input"})
        with Image.open(folders.input / "clipspace" / "m.png") as made:
            assert made.getpixel((3, 3)) == (255, 0, 0, 77)
            assert made.info["workflow"] == "{}"
        bad = ["", "x", "[]", "7", "{}", '{"filename": 7}', '{"filename": "o.png", "type": "user"}']
        for wrong in bad:
            assert (await upload(with_alpha(), original_ref=wrong))[0] == 400, wrong
        assert (await upload(with_alpha(), original_ref='{"filename": "none.png"}'))[0] == 404
        for outside in ("../o.png", "/etc/passwd", "CON", "a\\u0000"):
            assert (await upload(with_alpha(), original_ref=f'{{"filename": "{outside}"}}'))[0] in (400, 403), outside
        status, reply = await upload(with_alpha((4, 4)), original_ref=reference)
        assert (status, "size" in reply["error"]) == (415, True)
        assert (await upload(picture("JPEG"), original_ref=reference))[0] == 415
        assert (await client.post("/api/upload/mask", data=form(with_alpha()))).status == 400

    serve(check)
    assert (folders.output / "sub" / "o.png").read_bytes() == before
    assert [path.name for path in folders.temp.iterdir()] == []


FORMS = {
    "NUL": b'--x\r\nContent-Disposition: form-data; name="image"; filename="a\0.png"\r\n\r\nz\r\n--x--\r\n',
    "NUL encoded": b'--x\r\nContent-Disposition: form-data; name="image"; filename="a%00.png"\r\n\r\nz\r\n--x--\r\n',
    "newline": b'--x\r\nContent-Disposition: form-data; name="image"; filename="a%0a.png"\r\n\r\nz\r\n--x--\r\n',
    "device": b'--x\r\nContent-Disposition: form-data; name="image"; filename="con.png"\r\n\r\nz\r\n--x--\r\n',
    "no header": b"--x\r\n\r\nz\r\n--x--\r\n",
    "broken header": b"--x\r\nContent\x01: \xff\r\n\r\nz\r\n--x--\r\n",
    "other boundary": b"--y\r\n\r\nz\r\n--y--\r\n",
    "cut": b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nz',
    "empty": b"",
    "nested": b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n--y--\r\n--x--\r\n",
    "encoding": b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    b"Content-Transfer-Encoding: nonsense\r\n\r\nz\r\n--x--\r\n",
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("boundary", ["; boundary=x", "", "; boundary="])
def test_malformed_forms(serve, name, boundary, caplog):
    """A reason in JSON with a 4xx, and nothing in the log that looks like a fault of ours."""

    async def check(client, studio):
        headers = {"Content-Type": f"multipart/form-data{boundary}"}
        for path in ("/api/upload/image", "/api/upload/mask"):
            reply = await client.post(path, data=FORMS[name], headers=headers)
            assert 400 <= reply.status < 500
            assert (await reply.json())["error"]

    serve(check)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("encoding", ["deflate", "gzip", "br", "zstd", "nonsense", "gzip, gzip", "x\xff"])
def test_packed_bodies(make_studio, encoding):
    """Refused at once, in JSON, by the server as it runs, whatever is in them."""
    import socket

    from comfyui_rollout.server import Access, application, listening_socket, serving

    with listening_socket("127.0.0.1", 0) as opened, serving(application(make_studio(), Access()), opened):
        for path in ("/api/prompt", "/api/settings", "/api/upload/image"):
            with socket.create_connection(opened.getsockname()) as asking:
                head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: {encoding}\r\n"
                asking.sendall(f"{head}Content-Length: 4\r\nConnection: close\r\n\r\njunk".encode("latin-1"))
                reply = b"".join(iter(lambda asking=asking: asking.recv(65536), b""))
            head, _, body = reply.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 415")
            assert "is not read: send the body as it is" in json.loads(body)["error"]
