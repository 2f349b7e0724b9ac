"""The guard at the door, around the page as it is launched: hosts, origins, bodies, routes, errors, addresses."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import runpy
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from test_page import Program

import engine
from app import guard, page
from app.acts import ACTS
from app.guard import BODY, Guard
from app.page import PLOTLY
from engine import Engine
from engine.errors import ConceptscapeError
from engine.store import Store

ROOT = Path(__file__).parents[1]
DESK = "/desk"
MEMORY = 1_500_000  # kB that the program may take, models and all
DEEP = b'{"data":' + b"[" * 50_000

FOREIGN_HOSTS = (
    *("evil.example:PORT", "x.localhost:PORT", "localhost.:PORT", "127.0.0.1.:PORT", "2130706433:PORT", "127.1:PORT"),
    *("0x7f.0.0.1:PORT", "[::1]:PORT", "[::ffff:127.0.0.1]:PORT", "0.0.0.0:PORT", "192.168.1.5:PORT", "127.0.0.2:PORT"),
    *("127.0.0.1", "127.0.0.1:", "127.0.0.1:1", "127.0.0.1:PORT0", "127.0.0.1:0PORT", "localhost", "", ":PORT"),
    *("user@127.0.0.1:PORT", "127.0.0.1:PORT@evil.example", "127.0.0.1:PORT.evil.example", "127.0.0.1:PORT/", "*"),
    *("127.0.0.1%00:PORT", "%6cocalhost:PORT", "localhost%2e:PORT", "127.0.0.1 :PORT", "127.0.0.1:PORT, evil.example"),
    *("http://127.0.0.1:PORT", "127.0.0.1:PORT\x00", "l\xf6calhost:PORT", "127.0.0.1.nip.io:PORT"),
)
FOREIGN_ORIGINS = (
    *("null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "http://x.localhost:PORT", "", "*"),
    *("file://", "http://localhost.:PORT", "http://evil.example:PORT", "http://127.0.0.1:PORT.evil.example"),
    *("http://127.0.0.1:PORT@evil.example", "ftp://127.0.0.1:PORT", "http://127.0.0.1:PORT/", "http://[::1]:PORT"),
    *("chrome-extension://abcdefgh", "http://127.0.0.1:PORT http://evil.example"),
)

Answer = tuple[int, dict[str, str], bytes]
Headers = Iterable[tuple[str, str]]


class Door:
    """The page as `app.py` launches it, asked through ASGI in its own loop; `reached` is what got past the guard."""

    def __init__(self, concept_engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached: list[Scope] = []
        self.broken: Exception | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        inner = FastAPI.__call__

        async def recorded(app: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:
            self.loop = asyncio.get_running_loop()
            self.reached.append(scope)
            if self.broken:
                raise self.broken
            await inner(app, scope, receive, send)

        monkeypatch.setattr(FastAPI, "__call__", recorded)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.app = Guard("127.0.0.1", [page.route(concept_engine, store)])
        self.blocks = page.build(concept_engine)
        options: dict[str, Any] = {"prevent_thread_lock": True, "quiet": True, "ssr_mode": False, **page.look()}
        self.blocks.launch(server_name="127.0.0.1", server_port=self.port, _app=self.app, **options)

    def ask(
        self,
        method: str = "GET",
        path: str = "/",
        headers: Headers | None = None,
        body: Iterable[bytes] = (),
        query: str = "",
        address: str = "127.0.0.1",
    ) -> Answer:
        """An answer as a browser would get it; a stream is left after a moment. PORT stands for the server's."""
        given = [("host", "127.0.0.1:PORT")] if headers is None else list(headers)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.encode("latin-1"), v.replace("PORT", str(self.port)).encode("latin-1")) for k, v in given],
            "client": ("127.0.0.1", 50_000),
            "server": (address, self.port),
            "state": {},
        }
        assert self.loop
        return asyncio.run_coroutine_threadsafe(self._ask(scope, chain(body, [b""])), self.loop).result(timeout=30)

    async def _ask(self, scope: Scope, chunks: Iterator[bytes]) -> Answer:
        sent: list[Message] = []

        async def receive() -> Message:
            if (chunk := next(chunks, None)) is not None:
                return {"type": "http.request", "body": chunk, "more_body": chunk != b""}
            await asyncio.sleep(0.02)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await self.app(scope, receive, send)
        except Exception:
            if not sent:
                raise  # once an answer has begun, the server can only close the connection
        assert sent[0]["type"] == "http.response.start", sent
        headers = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


@pytest.fixture(scope="module")
def launched(e: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch, Store(tmp_path_factory.mktemp("guard") / "documents.db") as store:
        door = Door(e, store, patch)
        yield door
        door.blocks.close(verbose=False)


@pytest.fixture
def door(launched: Door) -> Door:
    launched.reached.clear()
    return launched


def own(*more: tuple[str, str]) -> Headers:
    return [("host", "127.0.0.1:PORT"), *more]


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT", "LocalHost:PORT"])
@pytest.mark.parametrize("origin", ["", "http://", "https://"])
def test_the_page_itself_comes_in(door: Door, host: str, origin: str) -> None:
    headers = [("host", host), *([("origin", origin + host)] if origin else [])]
    status, given, body = door.ask(headers=headers)
    assert status == 200 and b"Conceptscape" in body
    assert {name.decode(): value.decode() for name, value in guard.SECURITY.items()}.items() <= given.items()


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_another_host_is_refused(door: Door, host: str) -> None:
    status, given, body = door.ask(headers=[("host", host)])
    assert status == 403 and door.reached == []
    said = f"This page answers only under its own address, http://127.0.0.1:{door.port}. Open that.\n"
    assert body.decode() == said and given["content-type"] == "text/plain; charset=utf-8"
    assert given["x-content-type-options"] == "nosniff"


def test_there_is_one_host_header(door: Door) -> None:
    for headers in ([], own(("host", "evil.example")), [("host", "evil.example"), *own()], own(*own())):
        assert door.ask(headers=headers)[0] == 403
    assert door.reached == []


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_another_origin_is_refused(door: Door, origin: str) -> None:
    for method, path in (("GET", "/"), ("POST", DESK), ("OPTIONS", DESK)):
        status, given, body = door.ask(method, path, own(("origin", origin)))
        assert status == 403 and body.startswith(b"Another web site asked for this")
        assert "access-control-allow-origin" not in given
    assert door.reached == []


def test_an_origin_is_the_host_that_was_asked(door: Door) -> None:
    assert door.ask(headers=own(("origin", "http://localhost:PORT")))[0] == 403
    assert door.ask(headers=own(("origin", "http://127.0.0.1:PORT"), ("origin", "http://evil.example")))[0] == 403
    assert door.reached == []


def test_links_from_other_sites_lead_here_and_nothing_else_does(door: Door) -> None:
    def fetched(site: str, mode: str, dest: str, method: str = "GET") -> int:
        marks = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        return door.ask(method, "/", own(*marks.items()))[0]

    assert fetched("cross-site", "navigate", "document") == 200
    assert fetched("same-origin", "cors", "empty") == fetched("none", "navigate", "document") == 200
    door.reached.clear()
    assert fetched("cross-site", "no-cors", "image") == fetched("cross-site", "navigate", "iframe") == 403
    assert fetched("same-site", "no-cors", "script") == 403  # a server on another port of this machine
    assert fetched("cross-site", "navigate", "document", "POST") == 403
    assert door.reached == []


def test_hosts_follow_where_the_server_listens(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Workshop")

    def let_in(given: str, address: str, host: str) -> bool:
        monkeypatch.setattr(door, "app", Guard(given))
        return door.ask(path="/nothing", headers=[("host", host)], address=address)[0] == 404

    assert let_in("0.0.0.0", "192.168.1.5", "192.168.1.5:PORT")
    assert let_in("0.0.0.0", "192.168.1.5", "workshop:PORT")
    assert let_in("0.0.0.0", "127.0.0.1", "localhost:PORT")
    assert not let_in("0.0.0.0", "192.168.1.5", "localhost:PORT")
    assert not let_in("0.0.0.0", "192.168.1.5", "192.168.1.6:PORT")
    assert not let_in("127.0.0.1", "127.0.0.1", "workshop:PORT")
    assert let_in("::1", "::1", "[::1]:PORT") and let_in("::1", "::1", "localhost:PORT")
    assert not let_in("::1", "::1", "127.0.0.1:PORT")
    assert let_in("localhost", "127.0.0.1", "localhost:PORT")
    assert let_in("Studio.example", "192.168.1.5", "studio.example:PORT")
    monkeypatch.setattr(door, "port", 80)
    assert let_in("::1", "::1", "[::1]") and let_in("127.0.0.1", "127.0.0.1", "localhost:80")


def test_a_public_link_comes_in_once_there_is_one(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    public = [("host", "1234.gradio.live"), ("origin", "https://1234.gradio.live")]
    assert door.ask(headers=public)[0] == 403 and door.reached == []
    monkeypatch.setattr(door.blocks, "share_url", "https://1234.gradio.live")
    assert door.ask(headers=public)[0] == 200
    assert door.ask(headers=[("host", "other.gradio.live")])[0] == 403


def test_large_bodies_are_refused(door: Door) -> None:
    for length in (BODY + 1, 200_000_000, 10**30):
        status, _, body = door.ask("POST", DESK, own(("content-length", str(length))))
        assert status == 413 and b"at most" not in body and b"12 MB" in body
    assert door.reached == []


def test_bodies_of_no_known_length_are_counted(door: Door) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1_000_000
            yield bytes(1_000_000)

    kind = ("content-type", "application/json")
    assert door.ask("POST", DESK, own(kind), endless())[0] == 413
    assert taken == BODY + 1_000_000
    status, _, body = door.ask("POST", DESK, own(kind), [bytes(BODY)])
    assert status == 200 and b"can't be read" in body


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "", "5_0", "0x10", "5, 5", "\xb2"])
def test_lengths_are_numbers(door: Door, length: str) -> None:
    assert door.ask("POST", DESK, own(("content-length", length)))[0] == 400
    assert door.ask("POST", DESK, own(("content-length", "5"), ("content-length", "5")))[0] == 400
    assert door.reached == []


CLOSED = (
    *("/gradio_api/upload", "/gradio_api/upload_progress", "/monitoring", "/monitoring/summary", "/monitoring/key"),
    *("/openapi.json", "/gradio_api/openapi.json", "/gradio_api/info", "/config", "/login", "/logout", "/docs"),
    *("/gradio_api/file=/etc/passwd", "/gradio_api/file=app.py", "/gradio_api/file/x", "/gradio_api/vibe-code"),
    *("/gradio_api/proxy=http://evil.example", "/gradio_api/run/act", "/gradio_api/api/act", "/gradio_api/call/act"),
    *("/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/runs", "/gradio_api/dev/reload", "/svelte/x.js"),
    *("/gradio_api/process_recording", "/gradio_api/stream/x/y/1/playlist.m3u8", "/gradio_api/custom_component/a/b"),
    *(f"/gradio_api/file={PLOTLY.as_posix()}/", f"/gradio_api/file={PLOTLY.as_posix()}/../../__init__.py"),
    *("//", "/.", "/..", "/desk/", "//desk", "/desk\n", "/desk%00", "", "*", "/assets/", "/assets/..", "/assets//x.js"),
    *("/assets/../routes.py", "/assets/x/../y.js", "/assets/..%2fx.js", "/assets/..\\x.js", "/assets/x.js\x00"),
    *("/static/../x.js", "/static/js/../x.js", "/static/fonts/x.js", "/assets/" + "x" * 300, "/assets/\u0661.js"),
    *(
        "http://127.0.0.1/",
        "/gradio_api/heartbeat/a/b",
        "/gradio_api/heartbeat/",
        "/gradio_api/queue/join",
        "/gradio_api/component_server",
        "/gradio_api//queue/join",
    ),
)


@pytest.mark.parametrize("path", CLOSED)
def test_what_the_page_does_not_use_is_closed(door: Door, path: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        assert door.ask(method, path, own())[0] == 404
    assert door.reached == []


def test_methods_are_those_of_the_page(door: Door) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "CONNECT", "PROPFIND"):
        assert door.ask(method, "/", own())[0] == 404
    assert door.ask("GET", DESK, own())[0] == 404
    assert door.reached == []


def test_a_websocket_is_closed_before_it_opens(door: Door) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    asyncio.run(door.app({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"] and door.reached == []


def test_what_gradio_raises_is_answered_in_a_sentence(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "broken", KeyError(12345))
    status, given, body = door.ask()
    assert (status, body) == (400, b"The server can make nothing of this request. Reload the page and try again.\n")
    assert given["x-frame-options"] == "DENY" and "KeyError: 12345" in caplog.text


@pytest.mark.parametrize("error", [OSError("disk full"), MemoryError()])
def test_the_machine_s_faults_are_not_the_request_s(
    door: Door, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "broken", error)
    status, _, body = door.ask()
    assert (status, body) == (500, b"Something went wrong here; the log file beside the database says more.\n")
    assert type(error).__name__ in caplog.text


def test_a_connection_that_breaks_within_a_question_is_no_error(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", door.port)) as cut:
        head = f"POST {DESK} HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\nContent-Type: application/json\r\n"
        cut.sendall(f'{head}Content-Length: 1000\r\n\r\n{{"ask":'.encode())
        while not door.reached:
            time.sleep(0.01)
    assert door.ask()[0] == 200  # in the same loop, after it
    assert caplog.text == ""


# Generated requests


def paths(routes: Iterable[Any]) -> Iterator[str]:
    """What the app's table of routes holds, with the routers in it."""
    for route in routes:
        if inner := getattr(route, "original_router", None):
            yield from paths(inner.routes)
        else:
            yield route.path


def filled(template: str, dice: random.Random) -> str:
    """A path for a route: its parameters are names, ways up, other files, nothing."""
    parts = ["x", "..", "../../app.py", "/etc/passwd", "%2e%2e%2f", "0", "", "\x00", "index.js", "a" * 300, "ünï", "."]
    return re.sub(r"\{[^}]*\}", lambda _: dice.choice(parts), template)


def bodies(dice: random.Random) -> tuple[list[tuple[str, str]], list[bytes]]:
    """Headers and chunks: what the page sends, nearly that, and what no page sends."""
    values: list[Any] = [None, True, 0, -1, 7, 2**70, 1e308, "", "x", [], {}, [[]], {"a": [None]}, "\ud800", "é\x00"]

    def value() -> Any:
        return dice.choice(values)

    whats = ["act", "look", "chart", "library", "stop", "leave", "landscape", value()]
    data = dict.fromkeys(["id", "ids", "text", "want", "frame", "document", "name", "base64"], value())
    asked = {"ask": dice.choice(whats), "tab": dice.choice(["0" * 32, "f" * 32, value()]), "number": value()}
    asked |= {"act": dice.choice([*ACTS, value()]), "data": dice.choice([data, value()]), "at": value()}
    some = dice.choice([asked, asked, asked, value(), dict.fromkeys(asked, value())])
    if isinstance(some, dict) and dice.random() < 0.3 and some:
        some = {key: some[key] for key in dice.sample(sorted(some), len(some) - 1)}
    kinds = [
        "application/json",
        "text/plain",
        "",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "a/b; \xff",
    ]
    raw = [
        *[json.dumps(some).encode()] * 6,
        *[
            b"",
            b"{",
            b"\xff\xfe",
            b"NaN",
            b'{"data": 1e999}',
            DEEP,
            b'{"a":' * 20_000,
            b"--x\r\n\r\n--x--",
            b"\x00" * 99,
        ],
        b'--x\r\nContent-Disposition: form-data; name="data"; filename="../x"\r\n\r\nhello\r\n--x--\r\n',
    ]
    chunks = [dice.choice(raw)]
    headers = [("content-type", dice.choice([*kinds[:1] * 8, *kinds]))]
    match dice.randrange(12):
        case 0:  # too large, and says so
            headers.append(("content-length", str(dice.choice([BODY + 1, 10**9, 10**40]))))
        case 1:  # too large, and does not say so
            chunks = [b'{"data":["', *[b"x" * 1_000_000] * 13, b'"]}']
        case 2:  # as large as it may be
            chunks = [b'{"session_hash":"large","fn_index":0,"data":["', b"x" * (BODY - 100), b'"]}']
        case 3:
            headers.append(("content-length", dice.choice(["x", "-1", "1 1", "", "\xb2"])))
    return headers, chunks


def open_to(method: str, path: str) -> bool:
    return any(pattern.fullmatch(path) and method in methods for pattern, methods in guard.ROUTES)


def peak() -> int:
    """The most memory that this process has taken, in kB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) if status.exists() else 0


def test_generated_requests(door: Door) -> None:
    dice = random.Random(7)
    templates = sorted(set(paths(door.app.routes)))
    assert len(templates) > 70 and {DESK, "/openapi.json", "/monitoring/{key}"} <= set(templates)
    ours = [DESK, DESK, DESK, DESK, "/", "/theme.css"]
    made_up = ["//", "/desk/", "/../desk", "/gradio_api/queue/join/..", "/%2e", "\\", "/a" * 200]
    methods = ["GET", "POST", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO"]
    queries = [
        "",
        "session_hash=x",
        "session_hash=",
        "page=nowhere",
        "deep_link=..%2fx",
        "deep_link=%00",
        "a=%ff&page=%zz",
    ]
    odd = [("cookie", "\xff=;;"), ("x-forwarded-host", "["), ("x-gradio-server", "//"), ("x-forwarded-proto", "\xe9")]
    before, seen = peak(), Counter[tuple[str, int]]()
    # Every route with every method once, then what the page uses, more often.
    asked = [(method, filled(path, dice)) for path in templates for method in ("GET", "POST", dice.choice(methods))]
    asked += [(dice.choice(["GET", "POST"]), dice.choice(ours)) for _ in range(800)]
    asked += [(dice.choice(methods), path) for path in made_up for _ in range(3)]
    for method, path in asked:
        foreign_host, foreign_origin = dice.random() < 0.15, dice.random() < 0.15
        host = dice.choice(FOREIGN_HOSTS) if foreign_host else dice.choice(["127.0.0.1:PORT", "localhost:PORT"])
        headers = [("host", host)]
        if foreign_origin:
            headers.append(dice.choice([("origin", dice.choice(FOREIGN_ORIGINS)), ("sec-fetch-site", "cross-site")]))
        elif dice.random() < 0.5:
            headers.append(("origin", f"http://{host}"))
        marks, chunks = bodies(dice)
        headers += marks + ([dice.choice(odd)] if dice.random() < 0.1 else [])
        door.reached.clear()
        status, given, body = door.ask(method, path, headers, chunks, dice.choice(queries))
        about = (method, path, headers, chunks[0][:200], status, body[:200])
        assert 200 <= status < 500 and given["x-content-type-options"] == "nosniff", about
        assert b"Traceback" not in body, about
        if foreign_host or foreign_origin:
            assert status == 403 and not door.reached, about
            seen["foreign", status] += 1
        elif not open_to(method, path):
            assert status == 404 and not door.reached, about
            seen["closed", status] += 1
        else:
            assert bool(door.reached) == (dict(marks).get("content-length") is None), about
            seen["open", status] += 1
    assert sum(seen.values()) > 700 and seen["foreign", 403] > 150 and seen["open", 200] > 50, seen
    assert min(seen["open", 413], seen["open", 400]) > 20, seen
    assert peak() - before < MEMORY // 2, seen


# The program itself


def over(
    address: str, port: int, host: str, method: str = "GET", path: str = "/", body: Any = None, **headers: str
) -> int:
    """The status of an answer over a socket."""
    to = http.client.HTTPConnection(address, port, timeout=60)
    to.request(method, path, body, {"Host": host, **headers})
    with to.getresponse() as response:
        response.read()
        return response.status


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::1", "[::1]"])
def test_the_program_answers_under_its_address(
    e: Engine, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of `app.py`, but for the seconds that loading the engine takes."""
    bare = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as probe:
            probe.bind((bare, 0))
            port = probe.getsockname()[1]
    except OSError as error:
        if ":" not in bare:
            raise
        pytest.skip(f"this machine has no IPv6 ({error})")
    address = "localhost" if bare == "0.0.0.0" else bare
    here = f"{guard.bracketed(address)}:{port}"
    hostname = f"{socket.gethostname()}:{port}"

    def visit(blocks: gr.Blocks) -> None:
        assert over(address, port, here, Origin=f"http://{here}") == 200
        assert over(address, port, here, Origin="http://evil.example") == 403
        assert over(address, port, here, "OPTIONS", DESK, Origin="http://evil.example") == 403
        for foreign in ("evil.example", f"x.localhost:{port}", f"localhost.:{port}"):
            assert over(address, port, foreign) == 403
        assert over(address, port, hostname) == (200 if bare == "0.0.0.0" else 403)
        blocks.close(verbose=False)

    monkeypatch.setattr(engine, "load", lambda *_, **__: e)
    monkeypatch.setattr(gr.Blocks, "block_thread", visit)
    main = runpy.run_path(str(ROOT / "app.py"))["main"]
    assert main(["--host", host, "--port", str(port), "--db", str(tmp_path / "documents.db"), "--no-browser"]) == 0
    assert capsys.readouterr().out == f"Conceptscape is open at http://{here}/. Press Ctrl+C to end.\n"


def test_a_port_is_free_where_gradio_looks_as_well() -> None:
    free_port = runpy.run_path(str(ROOT / "app.py"))["free_port"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConceptscapeError, match="out of reach"):
            free_port("127.0.0.2", taken.getsockname()[1])


def test_large_bodies_take_no_memory(tmp_path: Path) -> None:
    """In a process of its own, with nothing in it but the program."""
    program = Program(tmp_path)
    try:
        here = program.url.removeprefix("http://")
        address, port = here.split(":")
        for body in (bytes(200_000_000), (bytes(1_000_000) for _ in range(200))):  # with a length, and in chunks
            kind = {"Content-Type": "application/json"}
            assert over(address, int(port), here, "POST", DESK, body, **kind) == 413
        status = Path(f"/proc/{program.process.pid}/status")
        if status.exists():
            assert int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) < MEMORY
    finally:
        program.end()
