"""Open the page: python app.py"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

# Before Gradio is imported: it reads these once. Nothing here talks to the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import engine
from engine.errors import ConceptscapeError
from engine.spaces import SPACES
from engine.store import Store, default_path

PORT = 7860


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="Show a document as a path over a map of meaning.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s: this machine only)")
    parser.add_argument("--port", type=int, help=f"the port to listen on ({PORT}, or the next one that is free)")
    parser.add_argument("--db", type=Path, metavar="PATH", help=f"the database of documents ({default_path()})")
    parser.add_argument("--space", default="builtin", help=f"the concept space: {', '.join(SPACES)} (%(default)s)")
    parser.add_argument("--sonar-dir", type=Path, metavar="DIR", help="where SONAR's files are (the cache folder)")
    parser.add_argument(
        "--device", metavar="NAME", help="where SONAR computes: cpu, cuda, mps (a GPU, if there is one)"
    )
    parser.add_argument("--lcm", default="", metavar="NAME", help="the concept model, such as base or two-tower")
    parser.add_argument("--share", action="store_true", help="also make a public link, through Gradio's servers")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser.parse_args(arguments)


def free_port(host: str, wanted: int | None) -> int:
    """The port that was asked for, else the first free one from 7860 on. Raises ConceptscapeError."""
    if wanted is not None and not 1 <= wanted <= 65535:
        raise ConceptscapeError(f"There is no port {wanted}; choose one from 1 to 65535.")
    for port in range(PORT, PORT + 100) if wanted is None else [wanted]:
        try:
            for address in dict.fromkeys([host, "127.0.0.1"]):  # Gradio asks for the port there too, whatever the host
                family = socket.getaddrinfo(address, port)[0][0]
                with socket.socket(family) as probe:
                    if os.name == "posix":  # a port left a moment ago counts as free, as it does for the server
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            return port
        except socket.gaierror:
            raise ConceptscapeError(f"There is no address {host}; use 127.0.0.1 or 0.0.0.0.") from None
        except OSError as error:
            reason = error.strerror
    tried = f"Port {wanted}" if wanted else f"Every port from {PORT} to {PORT + 99}"
    raise ConceptscapeError(f"{tried} of {host} is out of reach ({reason}); choose another with --port.")


def load(chosen: argparse.Namespace) -> engine.Engine:
    """The engine that was asked for. A space that takes gigabytes says so first, and how far it is."""
    if chosen.space == "sonar":
        from engine.device import best_device, best_dtype
        from engine.spaces.sonar import memory_needed

        device = best_device(chosen.device)
        dtype = best_dtype(device)
        name = str(dtype).removeprefix("torch.")
        print(f"SONAR takes about {memory_needed(dtype):.1f} GB of memory ({name} on {device}).", flush=True)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\rLoading {chosen.space}: {100 * done // total} %", end=end, file=sys.stderr, flush=True)

    return engine.load(chosen.space, chosen.lcm, sonar_dir=chosen.sonar_dir, device=chosen.device, progress=progress)


def keep_log(database: Path) -> None:
    """What nobody expected goes into a file beside the database, in full; the page only says that something did."""
    handler = RotatingFileHandler(database.with_suffix(".log"), maxBytes=1_000_000, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    logging.getLogger("conceptscape").addHandler(handler)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    host = chosen.host.strip("[]")  # an IPv6 address may come as it stands in a URL
    try:
        port = free_port(host, chosen.port)
        store = Store(chosen.db or default_path())
        keep_log(store.path)
        concept_engine = load(chosen)
        if concept_engine.has_landscape:
            concept_engine.landscape  # noqa: B018 - so that a missing file is told here
    except ConceptscapeError as error:
        print(error, file=sys.stderr)
        return 2

    from app import guard, page  # Gradio takes seconds to import, which a wrong option need not wait for

    blocks = page.build(concept_engine)
    _, local, public = blocks.launch(
        server_name=guard.bracketed(host),  # Gradio makes a URL of it
        server_port=port,
        share=chosen.share,
        inbrowser=not chosen.no_browser,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,  # Gradio's record of what was asked, which would hold people's texts
        _app=guard.Guard(host, [page.route(concept_engine, store)]),
        **page.look(),
    )
    print(f"Conceptscape is open at {public or local}. Press Ctrl+C to end.", flush=True)
    blocks.block_thread()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
