"""Caption pictures: `python -m captioning.caption ckpt=PATH images=FOLDER out=captions.csv`.

A checkpoint and pictures enter; one caption a picture leaves, to the screen, a table or a .txt
beside it. Killed half way, the same command goes on. A picture that cannot be read is listed at the
end, and exits with 1.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioning.captioner import Captioner

USAGE = """usage: python -m captioning.caption ckpt=PATH images=PICTURES [key=value ...]

  ckpt=PATH             best.ckpt of a run, or a folder that captioning.export made
  images=PICTURES       a picture; a folder, at any depth, without hidden files and bins; a
                        pattern such as 'trip/**/*.jpg'; or -, for names on standard input
  out=captions.csv      a table of image, caption; without out=, captions are printed
  out=captions.jsonl    JSON lines of file_name, text, as Hugging Face's imagefolder reads them
                        from a metadata.jsonl, or a metadata.csv, in the folder of the pictures
  out=sidecar           photo.txt beside photo.jpg; a .txt that is there stays as it is
  overwrite=true        make anew what is there, instead of going on with it
  width=5               beam width; 1 is greedy, 50 gives a rerank much to choose from
  search=sample         or greedy, beam, diverse, consensus; with search.top_p=0.9 and what else
                        conf/search/ has
  rerank=neighbours     reorder what the search finds by the captions of training images; with
                        rerank.ridge=0.3 and what else conf/rerank/ has
  data=FOLDER           for rerank=neighbours: images and captions, as for data.root= in
                        training; encoded once, into outputs/features
  weights=FILE          the encoder's weights, if not where they were in training
  device=cpu            or cuda
"""
DEFAULTS = {
    "out": "",
    "overwrite": "false",
    "width": "",
    "search": "beam",
    "rerank": "",
    "data": "",
    "weights": "",
    "device": "cpu",
}
POSITIVE = (
    "width",
    "samples",
    "groups",
    "max_length",
    "temperature",
    "top_p",
    "ridge",
    "max_images",
)


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code, 130 after Ctrl-C."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    from captioning import UserError

    try:
        return caption(**_options(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped: with out=, the same command goes on", file=sys.stderr)
        return 130


def caption(
    ckpt: str,
    images: str,
    out: str,
    overwrite: str,
    width: str,
    search: str,
    rerank: str,
    data: str,
    weights: str,
    device: str,
    **options: str,
) -> int:
    """Caption every picture that `out` lacks; returns 1 where one could not be.

    `options` are keys of the search, such as `search.top_p`.
    """
    from captioning import UserError
    from captioning.config.build import build
    from captioning.data.image_list import find_pictures, summarize_left_out
    from captioning.features.hashes import hash_images
    from captioning.output.caption_job import captioned, identity, write
    from captioning.output.caption_tables import Sidecars, Table

    if out not in ("", "sidecar") and Path(out).suffix not in (".csv", ".jsonl"):
        raise UserError(f"out={out}: it ends with .csv or .jsonl, or is the word sidecar")
    if overwrite not in ("true", "false"):
        raise UserError(f"overwrite={overwrite}: it is true or false")
    anew = overwrite == "true"
    if width:
        options["search.width"] = width
    if rerank and not data:
        raise UserError(f"rerank={rerank} needs data=FOLDER, training images and their captions")
    if data and not rerank:
        raise UserError(
            f"data={data} is for a rerank; type rerank=neighbours, too, or leave it out"
        )
    node, rerank_node = (
        group_node(group, name, {k: v for k, v in options.items() if k.startswith(f"{group}.")})
        for group, name in (("search", search), ("rerank", rerank))
    )
    listed = sys.stdin.buffer.read() if images == "-" else b""
    pictures, left_out = find_pictures(images, listed)
    if line := summarize_left_out(left_out):
        print(printable(line), file=sys.stderr)
    captioner = loaded(ckpt, weights, device)
    captioner.search = build(node)
    if data:
        training = captioner.fit_rerank(data, build(rerank_node))
        hashes = hash_images([record.path for record in training], "outputs/features")
        said = [
            (one.image_id, one.captions, sha.hex())
            for one, sha in zip(training, hashes, strict=True)
        ]
        node["rerank"] = rerank_node
        node["training"] = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    failed: list[str] = []
    if not out:
        for rows in captioned(captioner, pictures, failed):
            for path, text in rows:
                print(f"{printable(path)}\t{text}")
    else:
        made = Sidecars(anew) if out == "sidecar" else Table(out, identity(captioner, node), anew)
        with closing(made) as output:
            write(captioner, pictures, output, failed)
    for message in failed:
        print(f"error: {printable(message)}", file=sys.stderr)
    return 1 if failed else 0


def loaded(ckpt: str, weights: str, device: str) -> Captioner:
    """Load a checkpoint, or a folder that was exported."""
    import torch

    from captioning import UserError
    from captioning.captioner import Captioner

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UserError(f"device={device} is not here; type device=cpu")
    if Path(ckpt).is_dir() and weights:
        raise UserError(f"ckpt={ckpt} is a folder with weights of its own; leave out weights=")
    if Path(ckpt).is_dir():
        return Captioner.from_pretrained(ckpt, device=device)
    return Captioner.from_checkpoint(ckpt, weights or None, device)


def group_node(group: str, name: str, options: dict[str, str]) -> dict[str, Any]:
    """Return a config of conf/search or conf/rerank, with the user's values in it; {} for none."""
    from omegaconf import OmegaConf

    from captioning import UserError
    from captioning.config.compose import CONF, resolve_config

    known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if not name and not options:
        return {}
    if name not in known:
        raise UserError(f"{group}={name}: it is {', '.join(known)}")
    node = resolve_config(OmegaConf.load(CONF / group / f"{name}.yaml"))
    keys = [key for key, value in node.items() if isinstance(value, int | float) and key[0] != "_"]
    for option, text in options.items():
        key = option.removeprefix(f"{group}.")
        if key not in keys:
            known = ", ".join(f"{group}.{key}" for key in keys)
            raise UserError(f"{group}={name} has no {option}, only {known}")
        try:
            node[key] = type(node[key])(text)
        except ValueError:
            kind = "a whole number" if isinstance(node[key], int) else "a number"
            raise UserError(f"{option}={text}: it is {kind}") from None
        if node[key] < 0 or (node[key] == 0 and key in POSITIVE):
            raise UserError(f"{option}={text}: it is too small")
    return node


def printable(text: str) -> str:
    """Return the text on one line: a name of a file may hold line breaks and bytes of any kind."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _options(arguments: list[str]) -> dict[str, str]:
    from captioning.config.cli import key_values

    return key_values(
        arguments, "caption", ("ckpt", "images"), DEFAULTS, prefixes=("search.", "rerank.")
    )


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # … | head: end as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
