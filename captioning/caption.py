"""Caption images: `python -m captioning.caption holiday/ out=captions.csv`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from captioning import UserError
from captioning.config.cli import command, option
from captioning.config.compose import CONF, resolve_config

if TYPE_CHECKING:
    from captioning.captioner import Captioner
    from captioning.data.records import Record

LARGEST_FIGURE = 50  # images


@dataclass
class CaptionOptions:
    """Caption images: onto the screen, into a table, or into a .txt beside each.

    python -m captioning.caption holiday/
    python -m captioning.caption photographs out=photographs.png
    python -m captioning.caption 'trip/**/*.jpg' out=trip.csv ckpt=outputs/runs/lstm/TIME/best.ckpt

    Killed half way, the same command goes on with out=. Images that cannot be read are listed at
    the end, and the exit code is 1.
    """

    images: str = option(
        "an image; a folder, at any depth, without hidden files and bins; a pattern such as "
        "'trip/**/*.jpg'; -, for names on standard input; or photographs: a few that come with "
        "other packages",
        bare=True,
    )
    ckpt: str = option(
        "best.ckpt of a run, latest, or a folder of an export format=safetensors; default: the "
        "captioner of photographs that is in the package",
        "default",
    )
    out: str = option(
        "captions.csv: a table of image, caption and confidence; metadata.csv or any .jsonl: of "
        "file_name, text and confidence, as Hugging Face's imagefolder reads it in the folder of "
        "the images; sidecar: photo.txt beside photo.jpg, where there is none; a .png: a figure "
        "with the attention of each word",
        "",
    )
    overwrite: bool = option("true: make anew what is there, instead of going on with it", False)
    width: int | None = option("search.width: 1 is greedy, 50 gives a rerank choice", None)
    search: str = option("a file of conf/search/; its keys as search.top_p=0.9", "beam")
    rerank: str = option(
        "neighbours: training captions choose, or image_fit: and what fits the image; "
        "rerank.ridge=0.3 and the like",
        "",
    )
    image_fit: bool = option("true: a column that says how well the caption fits the image", False)
    data: str = option(
        "for rerank and image_fit: training images and captions, as data.root= in training", ""
    )
    min_confidence: float | None = option(
        "0 to 1: leave out the captions of less confidence; their images keep a row without", None
    )
    weights: str = option("the encoder's weights, if not where they were in training", "")
    device: str = option("or cuda", "cpu")
    settings: tuple[str, ...] = option("", (), prefixes=("search.", "rerank."))


@command(CaptionOptions)
def main(options: CaptionOptions) -> int:
    """Caption every image that `out` lacks; return 1 where one could not be."""
    from captioning.config.build import build
    from captioning.data.image_list import find_images, summarize_left_out
    from captioning.output import caption_job as job
    from captioning.output.caption_tables import CaptionTable, Sidecars, format_number

    search, rerank = read_search(options)
    built_search, built_rerank = build(search, "search"), rerank and build(rerank, "rerank")
    listed = sys.stdin.buffer.read() if options.images == "-" else b""
    images, left_out = find_images(options.images, listed)
    if left_out:
        print(printable(summarize_left_out(left_out)), file=sys.stderr)
    is_figure = options.out.lower().endswith(".png")
    if is_figure:
        check_figure(options, images)
    captioner = job.load_captioner(options.ckpt, options.weights, options.device)
    captioner.search = built_search
    if options.min_confidence is not None:
        captioner.check_confidence()
        search |= {"min_confidence": options.min_confidence}
    training = []
    if options.image_fit:
        training = captioner.fit_image_fit(options.data)
    if rerank:
        training = captioner.fit_rerank(options.data, built_rerank)
        search |= {"rerank": rerank}
    if training:
        warn_of_training_images(images, training)
        search |= {"training": job.hash_training(training)}
    if options.out == "sidecar" and options.min_confidence is None:
        captioner.confidence_model = None  # a text has no place for it
    failed: list[str] = []
    if is_figure:
        write_figure(captioner, images, Path(options.out), failed)
    elif not options.out:
        for rows in job.caption_images(captioner, images, failed, options.min_confidence):
            for path, text, scores in rows:
                print("\t".join([printable(path), text, *map(format_number, scores.values())]))
    else:
        output = Sidecars(options.overwrite)
        if options.out != "sidecar":
            contents = job.describe_job(captioner, search)
            columns = job.score_columns(captioner)
            output = CaptionTable(options.out, contents, options.overwrite, columns)
        with closing(output):
            job.write_captions(captioner, images, output, failed, options.min_confidence)
    for message in failed:
        print(f"error: {printable(message)}", file=sys.stderr)
    return 1 if failed else 0


def warn_of_training_images(images: Sequence[str], training: Sequence[Record]) -> None:
    """Say which images have captions in data=, from which what is said of them would be learnt."""
    known = {os.path.realpath(record.path) for record in training}
    if found := [path for path in images if os.path.realpath(path) in known]:
        print(
            f"warning: {len(found):,} of the images are training images of data=, as "
            f"{printable(found[0])}: their own captions decide, and image_fit is too high",
            file=sys.stderr,
        )


def check_figure(options: CaptionOptions, images: Sequence[str]) -> None:
    """Raise UserError for too many images, a file that is there, and one among the images."""
    if len(images) > LARGEST_FIGURE:
        raise UserError(
            f"out={options.out}: a figure is of {LARGEST_FIGURE} images at most, not "
            f"{len(images):,}; type out=captions.csv"
        )
    folder = Path(options.images)
    if folder.is_dir() and Path(options.out).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"out={options.out} would be one of the images next time; type another folder"
        )
    if Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a folder; type another name")
    if Path(options.out).exists() and not options.overwrite:
        raise UserError(f"out={options.out} is there; type overwrite=true or another name")


def write_figure(captioner: Captioner, paths: Sequence[str], out: Path, failed: list[str]) -> None:
    """Write a figure of the images, their captions and attention, and print the captions."""
    from captioning.data.image_files import load_image
    from captioning.data.progress import progress_bar
    from captioning.evaluation.figures import captioned_figure

    images = {}
    for path in paths:
        try:
            images[path] = load_image(path)
        except UserError as error:
            failed.append(str(error))
    if not images:
        return
    shown = progress_bar(list(images.values()), "captioning", delay=2)
    figure, captions = captioned_figure(captioner, shown)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    for path, caption in zip(images, captions, strict=True):
        print(f"{printable(path)}\t{caption}")
    print(f"{out}: {len(images)} image{'s' * (len(images) > 1)} with captions")


def read_search(options: CaptionOptions) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the configs of search and rerank. Raises UserError for what does not go together."""
    out, settings = options.out, [*options.settings]
    if options.search == "neighbours":
        raise UserError("type width=50 rerank=neighbours instead of search=neighbours")
    if out not in ("", "sidecar") and Path(out).suffix not in (".csv", ".jsonl", ".png", ".PNG"):
        raise UserError(f"out={out}: it ends with .csv, .jsonl or .png, or is the word sidecar")
    if bool(options.rerank or options.image_fit) != bool(options.data):
        raise UserError(
            "data=FOLDER, of the training, is typed together with rerank=neighbours or image_fit, "
            "or image_fit=true"
        )
    least = options.min_confidence
    if least is not None and not 0 <= least <= 1:
        raise UserError(f"min_confidence={least}: it is a number from 0 to 1")
    if out.lower().endswith(".png") and (least is not None or options.image_fit):
        raise UserError("a figure shows captions only; leave out min_confidence and image_fit")
    if options.width is not None:
        settings.append(f"search.width={options.width}")
    is_reranked = options.rerank or any(setting.startswith("rerank.") for setting in settings)
    rerank = group_config("rerank", options.rerank, settings) if is_reranked else None
    return group_config("search", options.search, settings), rerank


def group_config(group: str, name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Return a config of conf/search or conf/rerank, with the typed settings."""
    known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if name not in known:
        raise UserError(f"{group}={name}: it is {', '.join(known)}")
    config = OmegaConf.create({group: OmegaConf.load(CONF / group / f"{name}.yaml")})
    for setting in settings:
        if setting.startswith(f"{group}."):
            try:
                config.merge_with_dotlist([setting])
            except (OmegaConfBaseException, YAMLError, ValueError):
                raise UserError(f"{setting} cannot be read; type {group}.KEY=NUMBER") from None
    return resolve_config(config)[group]


def printable(text: str) -> str:
    """Return the text on one line: file names may hold line breaks and bytes of any kind."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # … | head: end as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
