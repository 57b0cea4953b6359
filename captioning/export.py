"""Take a captioner elsewhere: `python -m captioning.export ckpt=PATH format=onnx`.

A checkpoint enters; a folder leaves that holds all it takes, with a model card. format=onnx runs
without torch and without this project; format=safetensors is what Captioner.from_pretrained loads.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioning.captioner import Captioner

USAGE = """usage: python -m captioning.export ckpt=PATH format=onnx [key=value ...]

  ckpt=PATH             best.ckpt or last.ckpt of a run
  format=onnx           caption.onnx: pixels in, words out, greedy search within; caption.py runs it
                        with numpy, Pillow and onnxruntime alone
  format=safetensors    weights and config for Captioner.from_pretrained(FOLDER), no pickle in it
  out=FOLDER            where to; PATH without .ckpt, and the format, unless given
  scores=FILE           scores.json of captioning.evaluate, for the model card
  weights=FILE          the encoder's weights, if not where they were in training
"""
KEYS = ("ckpt", "format", "out", "scores", "weights")


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    from captioning import UserError

    try:
        export(**_options(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def export(ckpt: str, format: str, out: str, scores: str, weights: str) -> None:
    """Write the folder, complete or not at all, and say what is in it."""
    from captioning import UserError
    from captioning.captioner import Captioner, read_checkpoint

    if format not in ("onnx", "safetensors"):
        raise UserError(f"format={format}: it is onnx or safetensors")
    folder = Path(out or f"{ckpt.removesuffix('.ckpt')}-{format}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not empty; delete it or type another out=FOLDER")
    checkpoint = read_checkpoint(ckpt)
    captioner = Captioner.from_checkpoint(ckpt, weights or None)
    card = _card(ckpt, format, checkpoint, captioner, scores)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write = _write_onnx if format == "onnx" else _write_safetensors
        write(partial, checkpoint, captioner, weights or None)
        (partial / "README.md").write_text(card, encoding="utf-8")
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{folder}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:40} {path.stat().st_size / 1e6:8.2f} MB")
    print("read README.md before you pass it on")


def _write_onnx(
    folder: Path, checkpoint: Mapping[str, Any], captioner: Captioner, weights: str | None
) -> None:
    from onnxscript import ir

    from captioning.data import tokenizer
    from captioning.output import graph
    from captioning.output.safetensors_folder import config_of, write_config

    print("exporting, which takes half a minute", flush=True)
    model = graph.greedy_graph(captioner.encoder, captioner.decoder)
    ir.save(model, folder / "caption.onnx")
    write_config(folder, config_of(checkpoint, captioner.encoder.feature_shape[-1]))
    shutil.copy(tokenizer.__file__, folder / "tokenizer.py")
    shutil.copy(Path(graph.__file__).with_name("onnx_script.py"), folder / "caption.py")


def _write_safetensors(
    folder: Path, checkpoint: Mapping[str, Any], captioner: Captioner, weights: str | None
) -> None:
    from captioning.output.safetensors_folder import write_pretrained

    weights = weights or checkpoint["captioning"]["config"]["encoder"]["weights"]
    write_pretrained(folder, checkpoint, captioner.encoder.feature_shape[-1], weights)
    type(captioner).from_pretrained(folder)  # what cannot be loaded is not left behind


def _card(
    ckpt: str, kind: str, checkpoint: Mapping[str, Any], captioner: Captioner, scores: str
) -> str:
    """Write the model card from what the run left beside its checkpoint."""
    from omegaconf import OmegaConf

    from captioning.output.card import model_card

    beside, run, choice, captions = Path(ckpt).parent, None, None, None
    if (beside / "run.json").is_file():
        run = json.loads((beside / "run.json").read_text(encoding="utf-8"))
        best = (
            run["best_checkpoint"] == Path(ckpt).name and run["best_epoch"] == checkpoint["epoch"]
        )
        if best and run["status"] == "finished" and (beside / "captions.csv").is_file():
            captions = beside / "captions.csv"
    if (beside / ".hydra" / "hydra.yaml").is_file():
        hydra = OmegaConf.load(beside / ".hydra" / "hydra.yaml")
        choice = OmegaConf.select(hydra, "hydra.runtime.choices.data")
    evaluation = _evaluation(scores, checkpoint, captioner) if scores else None
    return model_card(kind, checkpoint, run, choice, captions, evaluation)


def _evaluation(scores: str, checkpoint: Mapping[str, Any], captioner: Captioner) -> dict[str, Any]:
    """Return what scores.json says of this checkpoint, wherever it lay then."""
    from captioning import UserError
    from captioning.features.weights import weights_sha256

    contents = checkpoint["captioning"]
    own = {
        "decoder": weights_sha256(captioner.decoder),
        "epoch": checkpoint["epoch"],
        "vocabulary_sha256": captioner.vocabulary.sha256,
        "model": contents["config"]["model"],
        "seed": contents["config"]["seed"],
        "encoder": contents["encoder"],
    }
    try:
        content = json.loads(Path(scores).read_text(encoding="utf-8"))
        systems = content["systems"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"scores={scores} is not a scores.json of captioning.evaluate") from None
    for system in systems:
        theirs = [{key: part.get(key) for key in own} for part in system["checkpoints"]]
        if theirs == [own]:
            row = next(one for one in content["rows"] if one["system"] == system["label"])
            return content | row
    raise UserError(f"scores={scores} has no scores of this checkpoint, only of others")


def _options(arguments: list[str]) -> dict[str, str]:
    from captioning.config.cli import key_values

    return key_values(arguments, "export", ("ckpt", "format"), dict.fromkeys(KEYS, ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
