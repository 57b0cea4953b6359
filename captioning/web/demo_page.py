"""The page itself: captioners and sample pictures enter, a Gradio app leaves.

One picture is looked at closely, several become a table. answers.py makes what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from captioning.captioner import Captioner
from captioning.data.image_list import image_suffixes
from captioning.web.answers import HINT, answer
from captioning.web.thumbnails import strip

HERE = Path(__file__).parent
SERVED, WAITING = 2, 32  # visitors at once
CHOOSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { index: Number(button.dataset.at) });
});
"""


def build_page(
    captioners: Mapping[str, Captioner], samples: Sequence[str], neighbours: bool = False
) -> gr.Blocks:
    """Return the app; start it with `launch_options`.

    With `neighbours`, visitors can let training pictures choose, which the captioners know.
    """
    with gr.Blocks(title="captioning", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        picked = gr.State(list(samples[:1]))
        gr.HTML("<h1>captioning</h1>", elem_id="title")
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="side", scale=0, min_width=288):
                bring(samples, picked)
                with gr.Column(elem_id="settings"):
                    settings, changes = choose(list(captioners), neighbours)
            with gr.Column(elem_id="main"):
                shown = gr.HTML(
                    HINT,
                    js_on_load=(HERE / "demo_page.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="answer",
                )
        gr.on(
            [page.load, picked.change, *changes],
            partial(answer, captioners),
            [picked, *settings],
            shown,
            api_visibility="private",
            show_progress="minimal",
            trigger_mode="always_last",
            concurrency_limit=SERVED,
        )
    return page.queue(max_size=WAITING)


def bring(samples: Sequence[str], picked: gr.State) -> None:
    """Lay out where pictures come from: the visitor's own files, and samples."""
    files = gr.File(
        label="Pictures",
        show_label=False,
        file_count="multiple",
        file_types=["image", *sorted(image_suffixes())],
        height=130,
        elem_id="drop",
    )
    shelf = gr.HTML(strip(samples), js_on_load=CHOOSE)
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    brought = [files.upload, files.delete, files.clear]
    gr.on(brought, lambda paths: paths or [], files, picked, **quiet)
    shelf.select(_sample(samples), None, [picked, files], **quiet)


def choose(labels: list[str], neighbours: bool) -> tuple[list[gr.Component], list[Callable]]:
    """Lay out search and models; return what `answer` takes, and the events that change it."""
    kinds = ["greedy", "beam", "sampling", *["neighbours"] * neighbours]
    first = "neighbours" if neighbours else "beam"
    search = gr.Radio(kinds, value=first, label="Search", elem_id="search")
    width = gr.Slider(2, 10, 5, step=1, label="Beam width", visible=first == "beam", buttons=[])
    temperature = gr.Slider(0.1, 2, 1, step=0.1, label="Temperature", visible=False, buttons=[])
    again = gr.Button("Draw again", size="sm", visible=False)
    models = gr.CheckboxGroup(labels, value=labels, label="Models", visible=len(labels) > 1)

    def fitting(search: str) -> list[dict[str, Any]]:
        uses = [search == "beam", search == "sampling", search == "sampling"]
        return [gr.update(visible=one) for one in uses]

    search.change(
        fitting,
        search,
        [width, temperature, again],
        api_visibility="private",
        show_progress="hidden",
    )
    events = [search.change, width.release, temperature.release, again.click, models.change]
    return [search, width, temperature, models], events


def launch_options() -> dict[str, Any]:
    """Return how the page looks and what it refuses: all that is not this machine's."""
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
        "css_paths": HERE / "demo_page.css",
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "quiet": True,
        "prevent_thread_lock": True,
    }


def _sample(samples: Sequence[str]) -> Callable[[gr.EventData], tuple[list[str], None]]:
    def chosen(event: gr.EventData) -> tuple[list[str], None]:
        return [samples[event.index]], None

    return chosen
