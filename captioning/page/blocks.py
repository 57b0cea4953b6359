"""The page itself: captioners and sample pictures enter, a Gradio app leaves.

One picture is looked at closely, several become a table. answers.py makes what is shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from captioning.captioner import Captioner
from captioning.data.records import UserError
from captioning.page.answers import look, problem, strip, table
from captioning.search.beam import beam_search, greedy_search
from captioning.search.sample import sample

HERE = Path(__file__).parent
MOST = 500  # pictures at once
WAITING = 32  # visitors' questions
DRAWS = 5
HINT = '<p class="hint">Drop a picture, or several for a table of captions.</p>'
CHOOSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  element.querySelectorAll("button").forEach((one) => one.classList.toggle("on", one === button));
  trigger("select", { index: Number(button.dataset.at) });
});
"""
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]


def build_page(captioners: Mapping[str, Captioner], samples: Sequence[str]) -> gr.Blocks:
    """Return the app, its queue limited; `look_and_limits` is what to launch it with."""
    labels = list(captioners)
    with gr.Blocks(title="captioning", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        picked = gr.State(list(samples[:1]))
        gr.HTML("<h1>captioning</h1>", elem_id="title")
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="side", scale=0, min_width=300):
                files = gr.File(
                    label="Pictures",
                    show_label=False,
                    file_count="multiple",
                    file_types=["image"],
                    height=130,
                    elem_id="drop",
                )
                shelf = gr.HTML(strip(samples), js_on_load=CHOOSE, visible=bool(samples))
                with gr.Column(elem_id="settings"):
                    search = gr.Radio(
                        ["greedy", "beam", "sampling"],
                        value="beam",
                        label="Search",
                        elem_id="search",
                    )
                    width = gr.Slider(2, 10, 5, step=1, label="Beam width", buttons=[])
                    temperature = gr.Slider(
                        0.1, 2, 1, step=0.1, label="Temperature", visible=False, buttons=[]
                    )
                    again = gr.Button("Draw again", size="sm", visible=False)
                    models = gr.CheckboxGroup(
                        labels, value=labels, label="Models", visible=len(labels) > 1
                    )
            with gr.Column(elem_id="main"):
                shown = gr.HTML(
                    HINT,
                    js_on_load=(HERE / "page.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="answer",
                )

        quiet: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "hidden",
        }
        gr.on(
            [files.upload, files.delete, files.clear],
            lambda paths: paths or [],
            files,
            picked,
            **quiet,
        )
        shelf.select(_sample(samples), None, [picked, files], **quiet)
        search.change(_controls, search, [width, temperature, again], **quiet)
        gr.on(
            [
                page.load,
                picked.change,
                search.change,
                width.release,
                temperature.release,
                again.click,
                models.change,
            ],
            partial(answer, captioners),
            [picked, search, width, temperature, models],
            shown,
            api_visibility="private",
            show_progress="minimal",
            trigger_mode="always_last",
            concurrency_limit=2,
        )
    return page.queue(max_size=WAITING)


def answer(
    captioners: Mapping[str, Captioner],
    paths: Sequence[str],
    search: str,
    width: int,
    temperature: float,
    labels: Sequence[str],
) -> Iterator[str]:
    """Return what the page shows of the pictures that are picked, piece by piece."""
    method, unit = {
        "greedy": (greedy_search, "log-probability a word"),
        "beam": (partial(beam_search, width=int(width)), "log-probability a word"),
        "sampling": (
            partial(
                sample,
                samples=DRAWS,
                temperature=temperature,
                seed=random.getrandbits(31),
            ),
            "log-probability",
        ),
    }[search]
    # Visitors may search in different ways at once, with the same networks.
    chosen = {
        label: Captioner(one.encoder, one.decoder, one.vocabulary, method)
        for label, one in captioners.items()
        if label in labels
    }
    try:
        if not paths:
            yield HINT
        elif not chosen:
            yield problem("Choose a model.")
        elif len(paths) > MOST:
            yield problem(
                f"{len(paths)} pictures are more than the {MOST} that this page takes at once; "
                "for a large folder type python -m captioning.caption"
            )
        elif len(paths) == 1:
            yield look(paths[0], chosen, unit)
        else:
            yield from table(paths, chosen)
    except UserError as error:
        yield problem(str(error))


def launch_options() -> dict[str, Any]:
    """Return how the page looks and what it refuses, for `launch`."""
    return {
        "theme": gr.themes.Base(
            primary_hue="blue",
            neutral_hue="slate",
            font=FONTS,
            font_mono=["ui-monospace", "monospace"],
        ),
        "css_paths": HERE / "page.css",
        "max_file_size": "20mb",
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "server_name": "127.0.0.1",
        "prevent_thread_lock": True,
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "quiet": True,
        "state_session_capacity": 100,
    }


def _sample(samples: Sequence[str]) -> Callable[[gr.EventData], tuple[list[str], None]]:
    def chosen(event: gr.EventData) -> tuple[list[str], None]:
        return [samples[event.index]], None

    return chosen


def _controls(search: str) -> list[dict[str, Any]]:
    beam, sampling = search == "beam", search == "sampling"
    return [gr.update(visible=beam), gr.update(visible=sampling), gr.update(visible=sampling)]
