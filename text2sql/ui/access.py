"""Who may talk to the page: this machine, or whoever has the token; and what a browser may do with what it is sent.

Everything passes here first. A request must name a host that is ours (a page elsewhere can point its own name at 127.0.0.1), a
POST must come from our own page, and where a token is set it must be in the cookie, which a request for `/?token=...` sets.
What this does NOT protect from: other users of this machine where no token is set, and those who listen on the network, for
the page is served over plain HTTP.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARIABLE = "TEXT2SQL_UI_TOKEN"
SHORTEST_TOKEN = 16
LOOPBACK = "127.0.0.1"
OWN_NAMES = (LOOPBACK, "localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
LOCKED = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>text2sql: locked</title>'
    '<link rel="icon" href="data:,"><h1>This page wants the token</h1>'
    "<p>Open the address that <code>text2sql ui</code> printed when it was started.</p>"
    '<p><a href="">I have: go on</a></p>'  # a link of ours sends the strict cookie, one on a report or elsewhere does not
)


@dataclass(frozen=True)
class Access:
    """The host that is served, its port, and the token that is asked for, None for none."""

    host: str = LOOPBACK
    port: int = 0
    token: str | None = None

    @property
    def cookie(self) -> str:
        """The cookie's name: cookies do not know ports, and two pages may be served at a time."""
        return f"text2sql_ui_{self.port}"


def token_for(host: str | None, given: str) -> str | None:
    """The token to ask for: `given` (from VARIABLE), else a new one where a host was named, else None. ValueError if short."""
    if given and len(given) < SHORTEST_TOKEN:
        raise ValueError(
            f"{VARIABLE} has {len(given)} characters: give it at least {SHORTEST_TOKEN}, or unset it for a new one"
        )
    return given or (secrets.token_urlsafe(24) if host is not None else None)


class Guard:
    """The app behind the checks of this module, and its answers with HEADERS where they have none of their own."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.access.host in OWN_NAMES and host.rpartition(":")[0] not in OWN_NAMES and host not in OWN_NAMES:
            return PlainTextResponse("This page is served to this machine alone, as 127.0.0.1 or localhost.", 421)
        if scope["method"] not in ("GET", "HEAD") and _is_foreign(headers, f"{scope['scheme']}://{host}"):
            return PlainTextResponse("This request comes from another page.", 403)
        return self._unlocking(scope) if self.access.token is not None else None

    def _unlocking(self, scope: Scope) -> Response | None:
        """None for a request with the token in its cookie; for one with the token in its address, that cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if scope["path"] == "/" and self._is_token(given):
            response = RedirectResponse("/", 303)
            response.set_cookie(self.access.cookie, given, httponly=True, samesite="strict")
            return response
        held = Request(scope).cookies.get(self.access.cookie, "")
        return None if self._is_token(held) else HTMLResponse(LOCKED, 401)

    def _is_token(self, given: str) -> bool:
        assert self.access.token is not None
        return secrets.compare_digest(given.encode(), self.access.token.encode())


def _is_foreign(headers: Headers, own: str) -> bool:
    """Whether a browser says that another page than ours sent this; what is no browser says nothing."""
    return headers.get("origin", own) != own or headers.get("sec-fetch-site", "same-origin") not in (
        "same-origin",
        "none",
    )
