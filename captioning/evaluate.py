"""Score and compare checkpoints: `python -m captioning.evaluate ckpt=PATH split=dev`.

Writes scores.json, captions, galleries and report.html.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from captioning import UserError
from captioning.config.cli import check_device, run_command
from captioning.config.compose import CONF, checked_configs, resolve_config
from captioning.config.hydra_arguments import hydra_arguments
from captioning.config.trust import check_write_paths


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one evaluation."""
    run_command(evaluate, cfg)


def evaluate(cfg: DictConfig) -> None:
    """Caption a split with each checkpoint, score the captions, write and print the results."""
    import torch

    from captioning.config.build import build
    from captioning.evaluation.calibration import check_records, fit_confidence
    from captioning.evaluation.results import make_results
    from captioning.evaluation.scoring import Scorer
    from captioning.metrics.image_fit import ImageFit
    from captioning.metrics.score_table import TABLE
    from captioning.training.provenance import provenance
    from captioning.training.validation import caption_records
    from captioning.web.report import write_results

    start = time.monotonic()
    options = check_options(cfg)
    split, folder = options["split"], Path(options["run_dir"])
    origin = provenance(torch.device(options["device"]))
    torch.manual_seed(options["seed"])
    search = build(options["search"])
    rerank = build(options["rerank"]) if options.get("rerank") else None
    readable, models, text_encoder, is_true = load_inputs(options)
    records, training = (
        [record for record in readable if record.split == name] for name in (split, "train")
    )
    if options["confidence"]:
        check_records(records, split, options["ckpt"])
    also = {name: TABLE[name].function for name in options["also"] if name != "fit"}
    fit_model, features = None, None
    if "fit" in options["also"]:
        store = models[0].store  # all systems are scored with the features of the first one's
        fit_model = ImageFit(text_encoder).fit(training, store)
        features = store.get_features(records)
    seed = options["seed"]
    scorer = Scorer(records, text_encoder, is_true, seed, also, fit_model, features)
    systems, described, confidences = [], [], []
    for model in models:
        label, decoder, vocabulary, store, identity = model
        begun = time.monotonic()
        fitted = rerank and rerank.fit(training, store, vocabulary)
        captions = caption_records(decoder, vocabulary, store.get_features, records, search, fitted)
        seconds = round(time.monotonic() - begun, 1)
        described.append({"label": label, "seconds": seconds, "checkpoints": identity})
        systems.append(scorer.system(label, captions))
        if options["confidence"] and len(identity) == 1:  # an ensemble has no file
            values, of_model = fit_confidence(scorer, model, training, captions)
            systems[-1].scores.per_image["confidence"] = values
            confidences.append(of_model)
    content = origin | {
        "split": split,
        "pictures": len(records),
        "search": {key: value for key, value in options["search"].items() if key != "_partial_"},
        "rerank": options.get("rerank"),
        "seconds": round(time.monotonic() - start, 1),
        "systems": described,
        "confidence": confidences,
        **make_results(scorer, systems, scorer.human()),
    }
    words = {word for model in models for word in model.vocabulary.words[4:]}
    write_results(folder, scorer, systems, words, content)
    print_results(content)
    print(f"report: {folder / 'report.html'}")


def print_results(content: dict[str, Any]) -> None:
    """Print the scores, how right each confidence is, and of several systems which is which."""
    from captioning.evaluation.results import format_results

    images, split = content["pictures"], content["split"]
    print(f"\nscores x100 of {images:,} images of {split}, ± half a 95 % interval:\n")
    print(format_results(content), end="\n\n")
    for of_model in content["confidence"]:
        print(
            f"{of_model['label']}: confidence is beside the checkpoint; calibration error "
            f"{of_model['ece']:.3f} on {of_model['measured_on']:,} images that it was not fitted to"
        )
    systems = content["systems"]
    for system in systems if len(systems) > 1 else ():
        paths = (checkpoint["path"] for checkpoint in system["checkpoints"])
        print(f"{system['label']}: {', '.join(paths)}")


def check_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the config in plain types. Raises UserError for what cannot be evaluated."""
    from captioning.metrics.score_table import JAVA, TABLE, keys_from

    options = resolve_config(cfg)
    check_write_paths(options)
    if "_target_" in options["data"] and options["data"].get("root", "") is None:
        raise UserError("data.root is missing; type data.root=FOLDER")
    if options["split"] == "dev":  # as Flickr8k calls it
        options["split"] = "val"
    if not isinstance(options["confidence"], bool):
        raise UserError(f"confidence={options['confidence']}: it is true or false")
    if isinstance(options["also"], str):
        options["also"] = [options["also"]]
    if options["split"] == "train" and (options.get("rerank") or "fit" in options["also"]):
        raise UserError(
            "rerank= and also=[fit] would read the images' own captions; type split=dev"
        )
    for name in options["also"]:
        if name == "fit":
            continue
        if name not in keys_from(JAVA):
            raise UserError(f"also=[{name}]: it can be {', '.join(['fit', *keys_from(JAVA)])}")
        TABLE[name].function(["a dog"], [["a dog runs"]])  # fails at once where Java is missing
    check_device(cfg.device)
    return options


def load_inputs(options: dict[str, Any]) -> tuple[list, list, Any, Any]:
    """Return the readable records, the models, the text encoder, and the data's `is_true`."""
    from captioning.checkpoint import read_model
    from captioning.evaluation.loaded_models import find_checkpoints, load_models, make_ensemble
    from captioning.features.datamodule import DataSource, load_records

    paths = find_checkpoints(options["ckpt"])
    checkpoints = [read_model(path) for path in paths]
    configs = [checkpoint["captioning"]["config"] for checkpoint in checkpoints]
    text_encoder = build_group("text_encoder", "metrics", options["text_encoder"], configs)
    text_encoder.model.to(options["device"])
    source = build_group("data", "data", options["data"], configs)
    if not isinstance(source, DataSource):
        raise UserError(f"{type(source).__name__} is no source of images; type data=NAME")
    source.prepare()
    split = options["split"]
    records = load_records(source)
    present = sorted({record.split for record in records})
    if split not in present:
        raise UserError(
            f"no image is in the {split} split, only in {', '.join(present)}; "
            f"type split={present[-1]}"
        )
    root, weights = options["features_root"], options["encoder"]["weights"]
    records, models = load_models(
        paths, checkpoints, records, root, weights, options["device"], source.skip_unreadable
    )
    if options["ensemble"]:
        models.append(make_ensemble(models))
    return records, models, text_encoder, getattr(source, "is_true", None)


def build_group(group: str, stage: str, chosen: dict[str, Any], configs: Sequence[dict]) -> Any:
    """Build a config group as typed, or as the checkpoints were trained with, with typed keys.

    Raises UserError if checkpoints differ.
    """
    from captioning.config.build import build, build_stored

    chosen = {key: value for key, value in chosen.items() if value is not None}
    if "_target_" in chosen:
        return build(chosen)
    if not all(isinstance(config.get(group), dict) for config in configs):
        raise UserError(
            f"an exported folder has no {group}, nor has a checkpoint without; type "
            "data=folder data.root=FOLDER text_encoder=minilm, or what it was trained with"
        )
    nodes = [config[group] | chosen for config in configs]
    if any(node != nodes[0] for node in nodes):
        raise UserError(
            f"the checkpoints were trained with different {group}; type {group}=NAME for all"
        )
    check_write_paths({group: nodes[0]})  # a stranger's checkpoint names where scenes are drawn
    return build_stored(nodes[0], stage)


if __name__ == "__main__":
    sys.argv[1:] = run_command(hydra_arguments, sys.argv[1:], "evaluate", "ckpt")
    main()
