"""The custom parts of the page, each a `gr.HTML` with its markup, styles and script in files of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def component(
    name: str,
    value: Any = None,
    functions: list[Callable[..., Any]] | None = None,
    head: str | None = None,
    scripts: Sequence[str] = (),
) -> gr.HTML:
    """The part of the page made by `name`.html, .css and .js; its id on the page is `name` with dashes.

    `scripts` are further ones that its own is divided into; they come before it and share its names.

    A part tells the server `act` (change the document), `look` (what would be?), `chart` (switch the map) and `stop`.
    The markup holds no values, so Gradio renders it once; the script draws every new value into it, text as text.
    """
    return gr.HTML(
        value=value or {},
        html_template=read(f"{name}.html"),
        css_template=read(f"{name}.css"),
        js_on_load="".join(read(f"{one}.js") for one in ("desk", *scripts, name)),
        apply_default_css=False,
        elem_id=name.replace("_", "-"),
        head=head,
        server_functions=functions,
    )
