"""The page: its parts, and which event goes to which handler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import plotly

from engine import Engine
from engine.store import Store

from . import view
from .components import component
from .handlers import Handlers

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def build(engine: Engine, store: Store) -> gr.Blocks:
    """The page of one engine and one database."""
    handlers = Handlers(engine, store)
    gr.set_static_paths([PLOTLY])

    def landscape(_: None) -> view.Json:  # Gradio passes one argument and marks the function: a method has no room
        return view.landscape(engine.landscape) if engine.has_landscape else {}

    script = f'<script src="/gradio_api/file={PLOTLY.as_posix()}"></script>'
    with gr.Blocks(title="Conceptscape", fill_width=True, analytics_enabled=False) as page:
        session = gr.State()
        bar = component("bar")
        with gr.Row(elem_id="desk"):
            concept_list = component("concept_list")
            concept_map = component("concept_map", functions=[landscape], head=script, scripts=["path", "landscape"])
            inspector = component("inspector")
        library = component("library", handlers.library(None))
        component("abilities", view.abilities(engine))

        # Progress is the page's own; and nothing here is an interface for other programs: that is the library.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        shown = [bar, concept_list, concept_map]
        page.load(handlers.arrive, None, [session, *shown], **quiet)
        for part in (bar, concept_list, inspector, library):
            part.act(handlers.act, [session], shown, trigger_mode="multiple", **quiet)
        inspector.look(handlers.look, [session], inspector, trigger_mode="multiple", **quiet)
        library.look(handlers.library, [session], library, trigger_mode="multiple", **quiet)
        concept_map.chart(handlers.chart, [session], concept_map, trigger_mode="multiple", **quiet)
        bar.stop(handlers.stop, [session], None, trigger_mode="multiple", **quiet)
    return page


def look() -> dict[str, Any]:
    """The options of `launch` that give the page its looks. Fonts come with Gradio; none is fetched from elsewhere."""
    theme = gr.themes.Base(
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    here = Path(__file__).parent
    return {
        "theme": theme,
        "css_paths": [here / "page.css"],
        "favicon_path": here / "favicon.svg",
        "footer_links": [],
    }
