"""The custom parts of the page, each a `gr.HTML` with its markup, styles and script in files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def component(name: str, value: Any = None, scripts: Sequence[str] = (), head: str | None = None) -> gr.HTML:
    """The part of the page made by `name`.html, .css and .js; its id on the page is `name` with dashes.

    `scripts` are further ones that its own is divided into; they come before it and share its names. What `head` loads
    is there before them.

    A part asks the server by `line` and hears what to show from `desk`, which are there before any part. The markup
    holds no values, so Gradio renders it once; the script draws every value into it, text as text.
    """
    find = "const find = (selector) => element.querySelector(selector);\n"
    return gr.HTML(
        value=value or {},
        html_template=read(f"{name}.html"),
        css_template=read(f"{name}.css"),
        js_on_load=find + "".join(read(f"{one}.js") for one in (*scripts, name)),
        apply_default_css=False,
        elem_id=name.replace("_", "-"),
        head=head,
    )
