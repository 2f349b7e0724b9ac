"""The connection between a tab and the program, which can be cut in every way that a network has."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

MODES = ("refuse", "hold", "drop the answer", "half the answer", "half the question", "late")
LATE = 0.4  # seconds that a question is on its way, at most; then whoever asked it has given up


class Wire:
    """Passes requests to `port` of this machine, one a connection, in the way that `mode` says."""

    def __init__(self, port: int, seed: int) -> None:
        self.mode = "through"
        self._to = port
        self._random = random.Random(seed)
        self._released = threading.Event()  # ends what is held
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, mode: str) -> None:
        self._released.clear()
        self.mode = mode

    def mend(self) -> None:
        self.mode = "through"
        self._released.set()

    def close(self) -> None:
        self.mend()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=[connection], daemon=True).start()

    def _pass(self, tab: socket.socket) -> None:
        mode = self.mode
        with contextlib.suppress(OSError), tab:
            if mode == "refuse":
                return
            question = request(tab)
            share = self._random.random()
            if mode == "hold":
                self._released.wait(10)
                return
            if mode == "late":
                self._released.wait(share * LATE)
            with socket.create_connection(("127.0.0.1", self._to)) as program:
                program.sendall(question if mode != "half the question" else question[: int(share * len(question))])
                if mode == "half the question":
                    return
                if mode == "drop the answer":
                    program.recv(1)  # it was done
                    return
                answer = b"".join(iter(lambda: program.recv(65536), b""))
            tab.sendall(answer if mode != "half the answer" else answer[: int(share * len(answer))])


def request(connection: socket.socket) -> bytes:
    """All of a request whose length is given."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            raise ConnectionError
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0]):
        if not (more := connection.recv(65536)):
            raise ConnectionError
        body += more
    return head + b"\r\n\r\n" + body
