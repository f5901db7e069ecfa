"""Who may talk to the server: the right host name, the same site, and the token if there is one."""

import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..serve import CannotServe

COOKIE = "rollout_token"
COOKIE_DAYS = 30
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST_PORT = 65535
HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\s\[\]:/?#@\\]+))(:(?P<port>[0-9]{0,5}))?", re.ASCII)
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@dataclass(frozen=True)
class Access:
    """The rules for one server."""

    hosts: frozenset[str] = frozenset(LOOPBACK)
    """Names by which it may be called. A page that makes its own name point here (DNS rebinding) is not among them."""
    any_address: bool = False
    """Whether every IP address will do as a name: they cannot be rebound, and a server on all interfaces has many."""
    token: str | None = None
    """What a client has to know; None lets everybody in."""

    @classmethod
    def on(cls, address: str, token: str | None = None, also: Iterable[str] = ()) -> "Access":
        """The rules for a server that listens on this address and is ``also`` called by other names, as a reverse
        proxy passes them on. Raises CannotServe where one of these is no name.
        """
        names = (*LOOPBACK, address.lower(), *map(host_name, also))
        if is_loopback(address):
            return cls(frozenset(names), token=token)
        own = (socket.gethostname().lower(), socket.getfqdn().lower(), f"{socket.gethostname().lower()}.local")
        return cls(frozenset((*names, *own)), is_wildcard(address), token)

    def knows_host(self, name: str | None) -> bool:
        return name is not None and (name in self.hosts or (self.any_address and _is_address(name)))

    def knows_token(self, given: str | None) -> bool:
        return self.token is None or (given is not None and secrets.compare_digest(given.encode(), self.token.encode()))

    def middleware(self) -> Middleware:
        """Refuses with 403 or 401 whoever breaks a rule."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            reason = self._refusal(request)
            if reason:
                return web.json_response({"error": reason}, status=403)
            query = request.query.get("token")
            if self.token is not None and query is not None and self.knows_token(query) and request.method == "GET":
                return self._remembered(request)
            if not self.knows_token(_given(request)):
                return _unknown(request)
            return await handler(request)

        return guard

    def _refusal(self, request: web.Request) -> str | None:
        name, port = split_host(request.headers.get("Host", ""))
        if not self.knows_host(name):
            known = "open it by the address that it printed, or start it with --allow-host NAME"
            return f"this server is not called {name or 'nothing'!r}; {known}"
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            return "requests from other sites are refused"
        origin = request.headers.get("Origin")
        if origin is not None and not _is_same(origin, name, port):
            return "requests from other origins are refused"
        return None

    def _remembered(self, request: web.Request) -> web.Response:
        """Put the token into a cookie, and send the browser on to its address without it, so that it stays secret."""
        kept = {name: value for name, value in request.query.items() if name != "token"}
        reply = web.Response(status=303, headers={"Location": str(request.rel_url.with_query(kept))})
        reply.set_cookie(COOKIE, self.token or "", httponly=True, samesite="Strict", max_age=COOKIE_DAYS * 24 * 3600)
        return reply


def new_token() -> str:
    return secrets.token_urlsafe(24)


def is_loopback(address: str) -> bool:
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def is_wildcard(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return address == ""


def host_name(text: str) -> str:
    """A name that a user gave, as browsers send it. Raises CannotServe where it is more or less than a name."""
    name = text.lower()
    if not (HOST_NAME.fullmatch(name) or _is_address(name)):
        raise CannotServe(f"--allow-host {text!r} is not a plain host name like studio.example: no scheme, no port")
    return name


def split_host(text: str) -> tuple[str | None, int | None]:
    """A Host header as (name in lower case, port or None); (None, None) if it is no such thing."""
    found = HOST.fullmatch(text.lower())
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port or 0) > LARGEST_PORT or (found["address"] and not _is_address(found["address"])):
        return None, None
    return found["address"] or found["name"], port


def _is_same(origin: str, name: str | None, port: int | None) -> bool:
    """Whether the page's origin is this very server. As in ComfyUI, ports count only where both sides have one."""
    scheme, _, place = origin.partition("://")
    theirs, their_port = split_host(place)
    if scheme.lower() not in ("http", "https") or theirs is None or theirs != name:
        return False
    return their_port is None or port is None or their_port == port


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _given(request: web.Request) -> str | None:
    header = request.headers.get("Authorization", "")
    if header.startswith("Bearer "):
        return header.removeprefix("Bearer ").strip()
    return request.cookies.get(COOKIE)


def _unknown(request: web.Request) -> web.Response:
    how = "open the address with ?token=... that the server printed, or send the header Authorization: Bearer TOKEN"
    if "text/html" in request.headers.get("Accept", ""):
        page = f"<!doctype html><title>Token needed</title><p>This server wants a token: {how}.</p>"
        return web.Response(status=401, text=page, content_type="text/html")
    return web.json_response({"error": f"token missing or wrong: {how}"}, status=401)
