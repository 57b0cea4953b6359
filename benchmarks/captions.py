"""Rows: how long the packaged captioner takes, from JPEG files to captions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.encoding import draw_images
from benchmarks.rows import Row, in_turn, seconds
from benchmarks.startup import run
from captioning.captioner import Captioner
from captioning.features.encoder import ONNX_MIN_IMAGES
from captioning.output.caption_job import caption_images
from captioning.search.beam import beam_search


def captions(folder: Path, repeats: int, images: int) -> list[Row]:
    """The first caption of a process, and captions a second of many images with a beam of 3."""
    paths = [record.path for record in draw_images(folder / "jpeg", images)]

    imports = "import torch, torchvision"
    calls = {
        "first": lambda: run(folder, "-m", "captioning.caption", paths[0]),
        "imports": lambda: run(folder, "-c", imports),
    }
    took = in_turn(calls, repeats)
    first = Row("first caption of a process", "s", took["first"], took["imports"], imports)

    captioner = Captioner.default()
    captioner.search = partial(beam_search, width=3)
    few = paths[: max(1, images // 16)]
    one_by_one = in_turn({"ordinary": lambda: [captioner(path) for path in few]}, repeats)
    ready = seconds(lambda: captioner.encoder.prepare_for(ONNX_MIN_IMAGES if images > 8 else 1))
    many = in_turn({"ours": lambda: list(caption_images(captioner, paths, []))}, repeats)
    row = Row(
        "caption JPEG files, beam 3",
        "images/s",
        [images / each for each in many["ours"]],
        [len(few) / each for each in one_by_one["ordinary"]],
        "Captioner.default() of an image at a time",
        notes={"seconds to get ONNX Runtime ready": ready},
    )
    return [first, row]
