"""Write a folder that holds a captioner, as ONNX or safetensors, and its model card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from captioning import UserError
from captioning.captioner import Captioner, confidence_path
from captioning.checkpoint import describe_model, read_checkpoint
from captioning.data import image_files, tokenizer
from captioning.models.old_names import decoder_sha256
from captioning.output.card import model_card
from captioning.output.safetensors_folder import write_config, write_pretrained


def export_captioner(
    ckpt: str, format: str, out: str, dtype: str, scores: str, weights: str
) -> Path:
    """Write the folder `out`, complete or not at all, and return it.

    Raises UserError if it is not empty, for `scores` of another checkpoint, and for ONNX in int8.
    """
    folder = Path(out or f"{ckpt.removesuffix('.ckpt')}-{format}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not empty; delete it or type another out=FOLDER")
    if (format, dtype) == ("onnx", "int8"):
        raise UserError("dtype=int8 is of format=safetensors; leave it out")
    if ckpt == "default" or (Path(ckpt) / "config.json").is_file():
        raise UserError(f"{ckpt} is an exported folder already; export takes a run's best.ckpt")
    checkpoint = read_checkpoint(ckpt)
    captioner = Captioner.from_checkpoint(ckpt, weights or None)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        if format == "onnx":
            _write_onnx(partial, checkpoint, captioner)
        else:
            weights = weights or checkpoint["captioning"]["config"]["encoder"]["weights"]
            feature_dim = captioner.encoder.feature_shape[-1]
            write_pretrained(partial, checkpoint, feature_dim, weights, dtype)
            confidence = captioner.confidence_model
            captioner = Captioner.from_pretrained(partial)  # or it is not left behind
            if confidence:
                confidence.decoder = decoder_sha256(captioner.decoder)
                confidence.save(confidence_path(partial))
        evaluation = read_evaluation(scores, checkpoint, captioner) if scores else None
        card = write_card(Path(ckpt), format, dtype, partial, checkpoint, evaluation)
        (partial / "README.md").write_text(card, encoding="utf-8")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_onnx(folder: Path, checkpoint: Mapping[str, Any], captioner: Captioner) -> None:
    from onnxscript import ir

    from captioning.output.graph import greedy_graph

    print("exporting, which takes half a minute", flush=True)
    model = greedy_graph(captioner.encoder, captioner.decoder)
    ir.save(model, folder / "caption.onnx")
    write_config(folder, checkpoint, captioner.encoder.feature_shape[-1])
    write_script(folder)


def write_script(folder: Path) -> None:
    """Write caption.py and the two files of this package that it takes, which need no other."""
    shutil.copy(Path(__file__).with_name("onnx_script.py"), folder / "caption.py")
    shutil.copy(tokenizer.__file__, folder)
    source = Path(image_files.__file__).read_text(encoding="utf-8")
    source = source.replace("from captioning import UserError", "UserError = ValueError")
    (folder / "image_files.py").write_text(source, encoding="utf-8")


def write_card(
    ckpt: Path,
    format: str,
    dtype: str,
    folder: Path,
    checkpoint: Mapping[str, Any],
    evaluation: dict[str, Any] | None,
) -> str:
    """Return the model card, from `folder` and what the run left beside its checkpoint."""
    run, data, captions = None, None, None
    if (ckpt.parent / "run.json").is_file():
        run = json.loads((ckpt.parent / "run.json").read_text(encoding="utf-8"))
        is_best = run["best_checkpoint"] == ckpt.name and run["best_epoch"] == checkpoint["epoch"]
        table = ckpt.parent / "captions.csv"
        if is_best and run["status"] == "finished" and table.is_file():
            captions = table
    if (ckpt.parent / ".hydra" / "hydra.yaml").is_file():
        hydra = OmegaConf.load(ckpt.parent / ".hydra" / "hydra.yaml")
        data = OmegaConf.select(hydra, "hydra.runtime.choices.data")
    sha256 = json.loads((folder / "config.json").read_text(encoding="utf-8"))["sha256"]
    return model_card(format, checkpoint, run, data, captions, evaluation, dtype, sha256)


def read_evaluation(
    scores: str, checkpoint: Mapping[str, Any], captioner: Captioner
) -> dict[str, Any]:
    """Return what a scores.json of captioning.evaluate has of a captioner, wherever it lay then.

    Its `differences` are from what was evaluated beside it, such as its weights in float32. Raises
    UserError if it has nothing of it.
    """
    identity = describe_model(checkpoint, captioner.decoder)
    try:
        content = json.loads(Path(scores).read_text(encoding="utf-8"))
        systems = content["systems"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"scores={scores} is not a scores.json of captioning.evaluate") from None
    for system in systems:
        scored = [{key: part.get(key) for key in identity} for part in system["checkpoints"]]
        if scored == [identity]:
            label = system["label"]
            row = next(row for row in content["rows"] if row["system"] == label)
            pairs = [x for x in content["differences"] if label in (x["first"], x["second"])]
            return content | row | {"differences": pairs}
    raise UserError(f"scores={scores} has no scores of this checkpoint, only of others")
