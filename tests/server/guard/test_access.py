"""Who is let in, and what every reply says to the browser."""

import pytest
from aiohttp import WSServerHandshakeError
from comfyui_rollout.server import Access, CannotServe
from comfyui_rollout.server.guard.access import split_host

SAME = {"Sec-Fetch-Site": "same-origin"}
REFUSED = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8188"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "10.0.0.5:8188"},
    {"Host": ""},
    {"Host": "[::1].evil.com"},
    {"Host": "[::1]evil.com:8188"},
    {"Host": "[::1]:8188.evil.com"},
    {"Host": "evil.com[::1]"},
    {"Host": "[localhost]"},
    {"Host": "[127.0.0.1]@evil.com"},
    {"Host": "localhost evil.com"},
    {"Host": "localhost,evil.com"},
    {"Host": "localhost.."},
    {"Host": "[::1]", "Origin": "http://[::1].evil.com"},
    {"Host": "localhost", "Origin": "http://localhost@evil.com"},
    {"Host": "localhost", "Origin": "http://localhost/x"},
    {"Host": "localhost:port"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": "file://"},
    {"Host": "localhost:8188", "Origin": "http://127.0.0.1:8188"},
    {"Host": "localhost:8188", "Origin": "http://localhost:9000"},
]
WELCOME = [
    {},
    {"Host": "localhost"},
    {"Host": "LOCALHOST:8188"},
    {"Host": "127.0.0.1:1234"},
    {"Host": "[::1]:8188", "Origin": "http://[::1]:8188"},
    {"Host": "localhost:8188", "Origin": "http://localhost:8188"},
    {"Host": "localhost:8188", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_strangers(serve, headers):
    """Rebound names, other sites and other origins get 403 and a reason, on pages, the API and the WebSocket."""

    async def check(client, studio):
        for path in ("/", "/api/prompt", "/api/userdata?dir=workflows", "/nowhere"):
            reply = await client.get(path, headers=headers)
            assert reply.status == 403, path
            assert "error" in await reply.json()
        assert (await client.post("/api/interrupt", headers=headers)).status == 403
        with pytest.raises(WSServerHandshakeError, match="403"):
            await client.ws_connect("/ws", headers=headers)

    serve(check)


@pytest.mark.parametrize("headers", WELCOME, ids=str)
def test_neighbours(serve, headers):
    """The addresses of this machine and pages of ours are welcome."""

    async def check(client, studio):
        assert (await client.get("/api/prompt", headers=headers)).status == 200
        async with client.ws_connect("/ws", headers=headers) as socket:
            assert (await socket.receive_json())["type"] == "status"

    serve(check)


def test_token(serve):
    """With a token nothing answers without it: the address with it sets a cookie; a header does as well."""
    token = "a-long-secret"

    async def check(client, studio):
        for path in ("/", "/api/prompt", "/api/object_info", "/assets/x.js"):
            assert (await client.get(path)).status == 401
        page = await client.get("/", headers={"Accept": "text/html"})
        assert page.content_type == "text/html"
        with pytest.raises(WSServerHandshakeError, match="401"):
            await client.ws_connect("/ws")
        for wrong in ("", "a-long-secreT", "x" * 100, "ü"):
            assert (await client.get("/", params={"token": wrong}, allow_redirects=False)).status == 401
            assert (await client.get("/", headers={"Authorization": "Bearer x"})).status == 401
        assert (await client.post(f"/api/interrupt?token={token}")).status == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/api/prompt", headers=bearer)).status == 200
        reply = await client.get(f"/?token={token}&template=x", allow_redirects=False)
        assert (reply.status, reply.headers["Location"]) == (303, "/?template=x")
        cookie = reply.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        known = {"Cookie": cookie.split(";")[0]}
        assert (await client.get("/", headers=known)).status == 200
        async with client.ws_connect("/ws", headers=known) as socket:
            assert (await socket.receive_json())["type"] == "status"
        refused = await client.get("/", headers={**known, "Sec-Fetch-Site": "cross-site"})
        assert refused.status == 403

    serve(check, token=token)


@pytest.mark.parametrize(
    ("address", "names", "others"),
    [
        ("127.0.0.1", ["localhost", "127.0.0.1", "::1"], ["10.0.0.5", "example.org"]),
        ("10.0.0.5", ["10.0.0.5", "localhost"], ["10.0.0.6", "example.org"]),
        ("0.0.0.0", ["10.0.0.5", "192.168.1.1", "::1", "fe80::1"], ["example.org", "10.0.0.5.example.org"]),
        ("::", ["10.0.0.5", "2001:db8::1"], ["example.org"]),
    ],
)
def test_names_of_a_listening_address(address, names, others):
    """A server is called by its own address; one on all interfaces by any address, but by no stranger's name."""
    access = Access.on(address)
    assert all(access.knows_host(name) for name in names)
    assert not any(access.knows_host(name) for name in others)


def test_names_that_a_proxy_passes_on(serve):
    """A name that the user gave is as good as our own, with the page's origin under https; no other one is."""
    access = Access.on("127.0.0.1", also=["Studio.example", "10.0.0.5"])
    assert access.knows_host("studio.example")
    assert not access.knows_host("www.studio.example")

    async def check(client, studio):
        through = {"Host": "studio.example", "Origin": "https://studio.example", **SAME}
        assert (await client.get("/api/prompt", headers=through)).status == 200
        async with client.ws_connect("/ws", headers=through) as socket:
            assert (await socket.receive_json())["type"] == "status"
        assert (await client.get("/api/prompt", headers={"Host": "10.0.0.5:8188"})).status == 200
        for strange in ({"Host": "other.example"}, {**through, "Origin": "https://other.example"}):
            assert (await client.get("/api/prompt", headers=strange)).status == 403

    serve(check, hosts=access.hosts)


@pytest.mark.parametrize(
    "text", ["https://studio.example", "studio.example:443", "studio.example/", "*.example", "", " "]
)
def test_what_is_no_name(text):
    """A mistyped name would let nobody in, without a word; it is refused in one line."""
    with pytest.raises(CannotServe, match=r"^--allow-host .* is not a plain host name like studio\.example"):
        Access.on("127.0.0.1", also=[text])


NO_HOSTS = [
    "a/b",
    "a?b",
    "a#b",
    "u@h",
    "h:99999",
    "[::1",
    "",
    "[::1].x",
    "[::1]x",
    "[x]",
    "a:b",
    "h:1:2",
    "a\\b",
    "a b",
]


@pytest.mark.parametrize("text", NO_HOSTS)
def test_odd_host_headers(text):
    assert split_host(text) == (None, None)


def test_headers(serve):
    """Every reply, errors too, forbids sniffing, framing by others, and loading from elsewhere."""

    async def check(client, studio):
        for path in ("/", "/api/prompt", "/nowhere", "/api/view"):
            headers = (await client.get(path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == "'self'"
            assert policy["frame-ancestors"] == "'self'"
            assert "http" not in headers["Content-Security-Policy"]
            assert "Cache-Control" in headers

    serve(check)
