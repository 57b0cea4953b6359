"""Caption pictures: `python -m captioning.caption ckpt=PATH images=FILE_OR_FOLDER`.

A checkpoint and pictures enter; one line a picture leaves, and with `out=captions.csv` or
`out=captions.json` a file. A picture that cannot be read is listed at the end, and exits with 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captioning.captioner import Captioner

USAGE = """usage: python -m captioning.caption ckpt=PATH images=FILE_OR_FOLDER [key=value ...]

  ckpt=PATH             best.ckpt or last.ckpt of a run
  images=PATH           a picture, or a folder whose pictures are captioned, at any depth
  out=FILE              also write FILE.csv or FILE.json (image, caption)
  width=5               beam width; 1 is greedy
  weights=FILE          the encoder's weights, if not where they were in training
  device=cpu            or cuda
"""
DEFAULTS = {"out": None, "width": "5", "weights": None, "device": "cpu"}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
BATCH = 32


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    from captioning.data.records import UserError

    try:
        return caption(**_options(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def caption(
    ckpt: str,
    images: str,
    out: str | None,
    width: str,
    weights: str | None,
    device: str,
) -> int:
    """Caption every picture and write `out`; returns 1 where some could not be read."""
    from functools import partial

    from captioning.captioner import Captioner
    from captioning.data.records import UserError
    from captioning.search.beam import beam_search

    if out and Path(out).suffix not in (".csv", ".json"):
        raise UserError(f"out={out}: it ends with .csv or .json")
    if not width.isdecimal() or int(width) < 1:
        raise UserError(f"width={width}: it is a number from 1 on")
    paths = _pictures(images)
    captioner = Captioner.from_checkpoint(ckpt, encoder_weights=weights, device=device)
    captioner.search = partial(beam_search, width=int(width))
    rows, failed = [], []
    for path, text in _captions(captioner, paths, failed):
        print(f"{path}\t{text}")
        rows.append({"image": str(path), "caption": text})
    if out:
        _write(Path(out), rows)
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    return 1 if failed else 0


def _options(arguments: list[str]) -> dict[str, str | None]:
    """Read key=value; everything after the first = is the value, whatever it holds."""
    import difflib

    from captioning.data.records import UserError

    options: dict[str, str | None] = dict(DEFAULTS)
    known = ["ckpt", "images", *DEFAULTS]
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]}=?" if close else ""
            raise UserError(f"{argument} is not one of {', '.join(f'{k}=' for k in known)}{hint}")
        options[key] = value
    for key in ("ckpt", "images"):
        if not options.get(key):
            raise UserError(f"{key}= is missing; see python -m captioning.caption --help")
    return options


def _pictures(images: str) -> list[Path]:
    from captioning.data.records import UserError

    root = Path(images)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"images={images}: there is no such file or folder")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("._")
    )
    if not found:
        raise UserError(
            f"images={images}: no picture in that folder ({' '.join(sorted(SUFFIXES))})"
        )
    return found


def _captions(
    captioner: Captioner, paths: list[Path], failed: list[str]
) -> Iterator[tuple[Path, str]]:
    """Caption in batches; what cannot be read goes to `failed`."""
    import torch
    from tqdm import tqdm

    from captioning.data.records import UserError
    from captioning.features.images import load_image

    bar = tqdm(total=len(paths), unit="img", desc="captioning", delay=2)
    for start in range(0, len(paths), BATCH):
        chunk = []
        for path in paths[start : start + BATCH]:
            try:
                chunk.append((path, captioner.encoder.preprocess(load_image(str(path)))))
            except UserError as error:
                failed.append(str(error))
        if chunk:
            texts = captioner.captions_of(torch.stack([image for _, image in chunk]))
            yield from zip((path for path, _ in chunk), texts, strict=True)
        bar.update(len(paths[start : start + BATCH]))
    bar.close()


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    import pandas as pd

    if path.suffix == ".csv":
        pd.DataFrame(rows, columns=["image", "caption"]).to_csv(path, index=False)
    else:
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
