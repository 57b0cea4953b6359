"""Caption images on a page in the browser: `python -m captioning.demo`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning import UserError
from captioning.config.cli import command, option

if TYPE_CHECKING:
    from captioning.captioner import Captioner


@dataclass
class DemoOptions:
    """Caption images on a page in the browser, which only this machine reaches, until Ctrl-C.

    python -m captioning.demo samples=holiday/
    python -m captioning.demo outputs/runs/lstm/TIME/best.ckpt default
    """

    ckpt: tuple[str, ...] = option(
        "best.ckpt of a run, latest, a pattern, or default: the captioner of photographs that is "
        "in the package; several, as 'ckpt=[A,B]': side by side",
        ("default",),
        bare=True,
    )
    samples: str = option(
        "images to pick from, as images= of caption; else photographs or, for a model of drawn "
        "scenes, some of those",
        "",
    )
    data: str = option("images and captions for rerank=neighbours, as data.root= in training", "")
    port: int = option("where the page is, on 127.0.0.1", 7860)
    weights: str = option("the encoder's weights, if not where they were in training", "")
    device: str = option("or cuda", "cpu")


@command(DemoOptions)
def main(options: DemoOptions) -> None:
    """Load the checkpoints and serve the page; what visitors brought is deleted at the end."""
    from captioning.checkpoint import read_model
    from captioning.evaluation.loaded_models import checkpoint_labels, find_checkpoints

    paths = find_checkpoints(options.ckpt)
    if not 0 < options.port < 65536:
        raise UserError(f"port={options.port}: it is a number from 1 to 65535")
    with tempfile.TemporaryDirectory(prefix="captioning-demo-") as folder:
        # Before gradio is imported, which reads them then: nothing calls home.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "GRADIO_TEMP_DIR": folder,
        }
        try:
            from captioning.web.demo_page import build_page, launch_options
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError("the page needs Gradio: pip install 'captioning[demo]'") from None
        configs = [read_model(path)["captioning"]["config"] for path in paths]
        labels = checkpoint_labels(paths, [config["name"] for config in configs])
        labelled = dict(zip(labels, paths, strict=True))
        captioners = load_captioners(labelled, options.data, options.weights, options.device)
        samples = find_samples(options.samples or draw_samples(configs, folder))
        page = build_page(captioners, samples)
        try:
            page.launch(server_port=options.port, **launch_options())
        except OSError:
            raise UserError(f"port={options.port} is taken; type port={options.port + 1}") from None
        serve(page, options.port)


def serve(page, port: int) -> None:
    """Keep a launched page up until Ctrl-C or SIGTERM."""
    log = logging.getLogger("uvicorn.error")
    log.addFilter(lambda record: "ClientDisconnect" not in str(record.exc_info))
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"http://127.0.0.1:{port} is the page; Ctrl-C ends it", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        page.server.force_exit = log.disabled = True  # an open tab would keep it up for ever
        page.close(verbose=False)


def load_captioners(
    paths: dict[str, str], data: str, weights: str, device: str
) -> dict[str, Captioner]:
    """Return the captioner of each checkpoint, by its label."""
    from captioning.output.caption_job import load_captioner
    from captioning.search.beam import beam_search

    captioners = {}
    for label, path in paths.items():
        captioner = captioners[label] = load_captioner(path, weights, device)
        if data:
            captioner.search = partial(beam_search, width=50)
            captioner.fit_rerank(data)
    return captioners


def draw_samples(configs: list[dict[str, Any]], folder: str) -> str:
    """Return `photographs`, or the folder of scenes that are drawn for a model of those."""
    from captioning.data.scenes import Scenes

    if not any("Scenes" in str(config.get("data")) for config in configs):
        return "photographs"
    scenes = Scenes(folder, images=10)
    scenes.prepare()
    return str(scenes.folder)


def find_samples(samples: str) -> list[str]:
    """Return the first 15 images of `samples`."""
    from captioning.data.image_list import find_images, summarize_left_out

    images, left_out = find_images(samples, key="samples")
    if left_out:
        print(summarize_left_out(left_out), file=sys.stderr)
    return [str(Path(path).absolute()) for path in images[:15]]


if __name__ == "__main__":
    sys.exit(main())
