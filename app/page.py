"""The page: its parts, and the address by which they ask the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine import Engine
from engine.store import Store

from . import view
from .components import component, read
from .desk import Desk

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SCRIPTS = ("pieces", "desk", "line")  # what all parts use


def build(engine: Engine) -> gr.Blocks:
    """The page of one engine."""
    gr.set_static_paths([PLOTLY])
    plotly_script = f'<script src="/gradio_api/file={PLOTLY.as_posix()}"></script>'
    with gr.Blocks(title="Conceptscape", fill_width=True, analytics_enabled=False) as page:
        component("bar")
        with gr.Row(elem_id="desk"):
            component("concept_list")
            component("concept_map", scripts=["path", "landscape"], head=plotly_script)
            component("inspector")
        component("library")
        component("abilities", view.abilities(engine))
        component("notices")
    return page


def route(engine: Engine, store: Store) -> Route:
    """Where the page asks: POST desk, with JSON both ways; see `Desk`."""
    desk = Desk(engine, store)
    threads = anyio.CapacityLimiter(40)

    async def ask(request: Request) -> Response:
        # A form of another site can send text, but no JSON.
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return Response("This address takes JSON.\n", 415, media_type="text/plain")
        body = await request.body()
        answer = await anyio.to_thread.run_sync(desk.answer, body, limiter=threads)
        return Response(answer, media_type="application/json")

    return Route("/desk", ask, methods=["POST"])


def look() -> dict[str, Any]:
    """The options of `launch` that give the page its looks. Fonts come with Gradio; none is fetched from elsewhere."""
    theme = gr.themes.Base(
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    here = Path(__file__).parent
    scripts = "".join(read(f"{one}.js") for one in SCRIPTS)
    return {
        "theme": theme,
        "head": f"<script>{scripts}</script>",
        "css_paths": [here / "page.css"],
        "favicon_path": here / "favicon.svg",
        "footer_links": [],
    }
