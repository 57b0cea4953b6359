"""Score checkpoints: `python -m captioning.evaluate ckpt=PATH split=dev search.width=5`.

Checkpoints enter; scores.json, captions, galleries and report.html leave. Of several checkpoints
it says who is better, and whether that is noise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from captioning import UserError
from captioning.config.cli import check_device, run_verb
from captioning.config.compose import CONF, checked_configs
from captioning.config.hydra_arguments import hydra_arguments
from captioning.config.trust import check_places

if TYPE_CHECKING:
    from captioning.data.records import Record
    from captioning.evaluation.loaded_models import LoadedModel


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="evaluate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one evaluation."""
    run_verb(evaluate, cfg)


def evaluate(cfg: DictConfig) -> None:
    """Caption a split with each checkpoint, score the captions, write and print what came of it."""
    import torch

    from captioning.config.build import build
    from captioning.evaluation.results import results
    from captioning.evaluation.scoring import Scorer
    from captioning.metrics.score_table import TABLE
    from captioning.training.provenance import provenance
    from captioning.training.validation import caption_records
    from captioning.web.result_files import write_folder

    start = time.monotonic()
    options = checked(cfg)
    origin = provenance(torch.device(options["device"]))
    torch.manual_seed(options["seed"])
    search = build(options["search"])
    rerank = build(options["rerank"]) if options.get("rerank") else None
    if rerank and options["split"] == "train":
        raise UserError("rerank=neighbours would read the images' own captions; type split=dev")
    readable, entrants, text_encoder, is_true = load(options)
    records = [record for record in readable if record.split == options["split"]]
    training = [record for record in readable if record.split == "train"]
    also = {name: TABLE[name].function for name in options["also"]}
    scorer = Scorer(records, text_encoder, is_true, options["seed"], also)
    systems, described = [], []
    for one in entrants:
        began = time.monotonic()
        fitted = rerank and rerank.fit(training, one.store.get_features, one.vocabulary)
        captions = caption_records(
            one.decoder, one.vocabulary, one.store.get_features, records, search, fitted
        )
        seconds = round(time.monotonic() - began, 1)
        described.append({"label": one.label, "seconds": seconds, "checkpoints": one.identity})
        systems.append(scorer.system(one.label, captions))
    measured = results(scorer, systems, scorer.people())
    content = origin | {
        "split": options["split"],
        "pictures": len(records),
        "search": {key: value for key, value in options["search"].items() if key != "_partial_"},
        "rerank": options.get("rerank"),
        "seconds": round(time.monotonic() - start, 1),
        "systems": described,
        **measured,
    }
    vocabulary = {word for one in entrants for word in one.vocabulary.words[4:]}
    write_folder(Path(options["run_dir"]), scorer, systems, vocabulary, content)
    report(content, Path(options["run_dir"]))


def checked(cfg: DictConfig) -> dict[str, Any]:
    """Return the config in plain types. Raises UserError where it asks for what cannot be."""
    from captioning.config.compose import resolve_config
    from captioning.data.records import SPLITS
    from captioning.metrics.score_table import JAVA, TABLE, keys_from

    missing = sorted(OmegaConf.missing_keys(cfg))
    if "_target_" in cfg.data and cfg.data.get("root", "") is None:
        missing.append("data.root")  # chosen without; null stands for the checkpoint's own
    if missing:
        raise UserError(f"{missing[0]}= is missing; see python -m captioning.evaluate --help")
    options = resolve_config(cfg)
    check_places(options)
    if options["split"] == "dev":  # as Flickr8k calls it
        options["split"] = "val"
    if options["split"] not in SPLITS:
        raise UserError(f"split={options['split']}: it is train, val (or dev) or test")
    for name in options["also"]:
        if name not in keys_from(JAVA):
            raise UserError(f"also=[{name}]: it can be {' or '.join(keys_from(JAVA))}, or both")
        TABLE[name].function(["a dog"], [["a dog runs"]])  # what is missing is said at once
    check_device(cfg.device)
    return options


def report(content: dict[str, Any], folder: Path) -> None:
    """Print the scores and where everything is."""
    from captioning.evaluation.results import markdown

    of = f"{content['pictures']:,} pictures of {content['split']}"
    print(f"\nscores x100 of {of}, ± half a 95 % interval:\n\n{markdown(content)}\n")
    if len(content["systems"]) > 1:
        for one in content["systems"]:
            print(f"{one['label']}: {', '.join(part['path'] for part in one['checkpoints'])}")
    print(f"report: {folder / 'report.html'}")


def load(options: dict[str, Any]) -> tuple[list[Record], list[LoadedModel], Any, Any]:
    """Return all records, who captions them, the text encoder, and who knows the truth."""
    from captioning.captioner import read_checkpoint
    from captioning.evaluation.loaded_models import ensemble, find_checkpoints, load_models
    from captioning.features.datamodule import DataSource, load_records

    paths = find_checkpoints(options["ckpt"])
    checkpoints = [read_checkpoint(path) for path in paths]
    configs = [checkpoint["captioning"]["config"] for checkpoint in checkpoints]
    text_encoder = chosen("text_encoder", "metrics", options["text_encoder"], configs)
    text_encoder.model.to(options["device"])
    source = chosen("data", "data", options["data"], configs)
    if not isinstance(source, DataSource):
        raise UserError(f"{type(source).__name__} is no source of pictures; type data=NAME")
    source.prepare()
    split = options["split"]
    records = load_records(source)
    there = sorted({record.split for record in records})
    if split not in there:
        raise UserError(
            f"no picture is in the {split} split, only in {', '.join(there)}; "
            f"type split={there[-1]}, or data.root=FOLDER for data that have it"
        )
    records, entrants = load_models(
        paths,
        checkpoints,
        records,
        options["features_root"],
        options["encoder"]["weights"],
        options["device"],
        source.skip_unreadable,
    )
    if options["ensemble"]:
        entrants.append(ensemble(entrants))
    return records, entrants, text_encoder, getattr(source, "is_true", None)


def chosen(group: str, stage: str, given: dict[str, Any], configs: Sequence[dict]) -> Any:
    """Make what the command line chose of a config group, or what the checkpoints trained with.

    Single keys on the command line change the latter. Raises UserError where checkpoints differ.
    """
    from captioning.config.build import build, build_stored

    given = {key: value for key, value in given.items() if value is not None}
    if "_target_" in given:
        return build(given)
    if not all(isinstance(config.get(group), dict) for config in configs):
        raise UserError(f"a checkpoint's config has no {group}; type {group}=NAME, as in training")
    nodes = [config[group] | given for config in configs]
    if any(node != nodes[0] for node in nodes):
        raise UserError(
            f"the checkpoints were trained with different {group}; say which one "
            f"scores them all: {group}=NAME, as in training"
        )
    check_places({group: nodes[0]})  # a stranger's checkpoint says where scenes are drawn
    return build_stored(nodes[0], stage)


if __name__ == "__main__":
    sys.argv[1:] = hydra_arguments(sys.argv[1:], "evaluate", bare="ckpt")
    main()
