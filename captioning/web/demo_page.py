"""Lay out the demo page, a Gradio app: image upload and samples, search settings, the captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from captioning.captioner import Captioner
from captioning.data.image_list import image_suffixes
from captioning.web.demo_answers import FRAGMENTS, THUMBNAIL, render_answer
from captioning.web.pages import TEMPLATES

SERVED, WAITING = 2, 32  # visitors at once
SILENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
SELECT_SAMPLE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { index: Number(button.dataset.at) });
});
"""


def build_page(captioners: Mapping[str, Captioner], samples: Sequence[str]) -> gr.Blocks:
    """Return the app; `samples` are paths of images to pick from."""
    has_rerank = any(captioner.rerank for captioner in captioners.values())
    with gr.Blocks(title="captioning", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        picked = gr.State(list(samples[:1]))
        gr.HTML("<h1>captioning</h1>", elem_id="title")
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="side", scale=0, min_width=288):
                add_image_inputs(samples, picked)
                with gr.Column(elem_id="settings"):
                    settings, changes = add_settings(list(captioners), has_rerank)
            with gr.Column(elem_id="main"):
                answer = gr.HTML(
                    FRAGMENTS.hint(),
                    js_on_load=(TEMPLATES / "demo.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="answer",
                )
        gr.on(
            [page.load, picked.change, *changes],
            partial(render_answer, captioners),
            [picked, *settings],
            answer,
            api_visibility="private",
            show_progress="minimal",
            trigger_mode="always_last",
            concurrency_limit=SERVED,
        )
    return page.queue(max_size=WAITING)


def add_image_inputs(samples: Sequence[str], picked: gr.State) -> None:
    """Lay out where images come from: the visitor's own files, and samples."""
    files = gr.File(
        label="Images",
        show_label=False,
        file_count="multiple",
        file_types=["image", *sorted(image_suffixes())],
        height=130,
        elem_id="drop",
    )
    shelf = gr.HTML(FRAGMENTS.samples(samples, THUMBNAIL), js_on_load=SELECT_SAMPLE)

    def pick_sample(event: gr.EventData) -> tuple[list[str], None]:
        return [samples[event.index]], None

    uploads = [files.upload, files.delete, files.clear]
    gr.on(uploads, lambda paths: paths or [], files, picked, **SILENT)
    shelf.select(pick_sample, None, [picked, files], **SILENT)


def add_settings(
    labels: list[str], has_rerank: bool
) -> tuple[list[gr.Component], list[Callable[..., Any]]]:
    """Lay out search and models; return what `render_answer` takes, and the events of a change."""
    searches = ["greedy", "beam", "sampling"]
    search = gr.Radio(searches, value="beam", label="Search", elem_id="search")
    limit, value = (50, 50) if has_rerank else (10, 5)  # a wide beam has most to rerank
    width = gr.Slider(2, limit, value, step=1, label="Beam width", buttons=[])
    temperature = gr.Slider(0.1, 2, 1, step=0.1, label="Temperature", visible=False, buttons=[])
    again = gr.Button("Draw again", size="sm", visible=False)
    rerank = gr.Checkbox(has_rerank, label="Rerank by training images", visible=has_rerank)
    models = gr.CheckboxGroup(labels, value=labels, label="Models", visible=len(labels) > 1)

    def show_options(search: str) -> list[dict[str, Any]]:
        sampling = gr.update(visible=search == "sampling")
        return [gr.update(visible=search == "beam"), sampling, sampling]

    search.change(show_options, search, [width, temperature, again], **SILENT)
    changes = [search.change, width.release, temperature.release, again.click]
    changes += [rerank.change, models.change]
    return [search, width, temperature, models, rerank], changes


def launch_options() -> dict[str, Any]:
    """Return the look of the page and its limits; only this machine reaches it."""
    return {
        "server_name": "127.0.0.1",
        "share": False,
        "max_file_size": "20mb",
        "state_session_capacity": 100,
        "theme": gr.themes.Base(
            primary_hue="blue",
            neutral_hue="slate",
            font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        "css_paths": TEMPLATES / "demo.css",
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "quiet": True,
        "prevent_thread_lock": True,
    }
