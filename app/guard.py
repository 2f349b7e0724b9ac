"""The guard at the door: which requests reach Gradio. A browser lets any web site send requests to this machine."""

from __future__ import annotations

import logging
import re
import socket
import sqlite3
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from gradio.routes import App, ORJSONResponse
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from .page import PLOTLY

log = logging.getLogger("conceptscape")

BODY = 12_000_000  # bytes: the page sends files of up to 8 MB, a third larger as base64; Gradio reads without end
NAME = r"[\w-]{1,100}(\.[\w-]{1,50}){0,3}"  # of a file: no way up, no slash, no longer than file systems take

# What the page asks for, as seen in a browser. All else that Gradio offers is closed: upload, proxies, other files,
# monitoring, OpenAPI, its interface for other programs.
PAGE = {
    "/": "GET HEAD",  # HEAD: Gradio sees whether it can be reached when it starts
    "/desk": "POST",
    r"/theme\.css": "GET",
    r"/(favicon\.ico|manifest\.json|pwa_icon)": "GET",  # browsers by themselves, for the tab or a shortcut
    f"/assets/{NAME}": "GET",
    f"/static/(fonts/{NAME}|js)/{NAME}": "GET",
    re.escape(f"/gradio_api/file={PLOTLY.as_posix()}"): "GET",
    "/gradio_api/startup-events": "GET",  # Gradio itself, when it starts
}
ROUTES = [(re.compile(path, re.ASCII), methods.split()) for path, methods in PAGE.items()]

SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",  # with no-referrer, browsers send "Origin: null" for the page's own forms
    b"cross-origin-resource-policy": b"same-origin",
}
TOO_LARGE = 413, f"This is too large: the page takes {BODY // 1_000_000} MB at once. Split it and bring in the parts."


class Guard(App):
    """Gradio's server, with the guard around all of it: around its answers to other origins and its errors as well."""

    def __init__(self, host: str, routes: Sequence[BaseRoute] = ()) -> None:
        """`host` is where the server was told to listen; `routes` are the page's own, besides Gradio's."""
        super().__init__(default_response_class=ORJSONResponse, routes=list(routes))
        self.names = {host.lower()} if is_loopback(host) else {host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        elif scope["type"] == "websocket":  # the page has none; closed before it was accepted, it is answered 403
            await send({"type": "websocket.close", "code": 1008})
        elif refusal := self.refusal(scope):
            await answer(send, *refusal)
        else:
            await self.pass_on(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that goes no further."""

        def given(name: bytes) -> list[str]:
            return [value.lower().decode("latin-1") for key, value in scope["headers"] if key == name]

        address, port = scope["server"]  # the connection's own, whatever the request says
        names = self.names | {address} | ({"localhost"} if is_loopback(address) else set())
        hosts = {f"{bracketed(name)}:{port}" for name in names}
        if port == 80:  # browsers leave it out
            hosts |= {bracketed(name) for name in names}
        if self.blocks and self.blocks.share_url:
            hosts.add(urlsplit(self.blocks.share_url).netloc.lower())
        host, origin, site = given(b"host"), given(b"origin"), given(b"sec-fetch-site")
        if len(host) != 1 or host[0] not in hosts:
            return 403, f"This page answers only under its own address, http://{bracketed(address)}:{port}. Open that."
        # A link on another site may lead here; its scripts, forms, images and frames may not.
        followed = [scope["method"], given(b"sec-fetch-mode"), given(b"sec-fetch-dest")]
        near = site in ([], ["same-origin"], ["none"]) or followed == ["GET", ["navigate"], ["document"]]
        if not near or origin not in ([], [f"http://{host[0]}"], [f"https://{host[0]}"]):
            return 403, "Another web site asked for this, and only the page itself may. Open its address in a tab."
        if not any(path.fullmatch(scope["path"]) and scope["method"] in methods for path, methods in ROUTES):
            return 404, "There is nothing at this address. The page itself is at /."
        length = given(b"content-length") or ["0"]
        if len(length) != 1 or not re.fullmatch("[0-9]+", length[0]):
            return 400, "The request does not say properly how long it is (Content-Length). Reload the page."
        return TOO_LARGE if len(length[0]) > 15 or int(length[0]) > BODY else None

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gradio's answer; but a sentence where the body turns out too large, or where Gradio raises."""
        size, started, error = 0, False, None

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY:
                raise ValueError(TOO_LARGE)  # so that Gradio stops; what it makes of this is not sent
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start" and size <= BODY and message["status"] != 500:
                started = True
                theirs = [pair for pair in message["headers"] if pair[0].lower() not in SECURITY]
                message = {**message, "headers": [*theirs, *SECURITY.items()]}
            if started:
                await send(message)

        try:
            await super().__call__(scope, counted, sent)
        except ClientDisconnect:
            return  # the connection broke within the question; nobody is there to be answered
        except Exception as raised:
            if started:
                raise
            error = raised
        if started:
            return
        if size > BODY:
            return await answer(send, *TOO_LARGE)
        # Gradio checks little of what it is sent, so nearly all that it raises comes from the request. What the machine
        # is to blame for (disk, memory, database) is not told as the request's fault.
        status, sentence = 500, "Something went wrong here; the log file beside the database says more."
        if error:
            log.error("unexpected", exc_info=error)
            if not isinstance(error, (OSError, MemoryError, sqlite3.Error)):
                status, sentence = 400, "The server can make nothing of this request. Reload the page and try again."
        await answer(send, status, sentence)


async def answer(send: Send, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    headers = {b"content-type": b"text/plain; charset=utf-8", b"content-length": b"%d" % len(body), **SECURITY}
    await send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
    await send({"type": "http.response.body", "body": body})


def bracketed(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address.lower() == "localhost"
