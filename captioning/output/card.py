"""Write the model card of an exported folder: what it is, what it was trained on, how good it is.

Every number comes from the checkpoint and what its run left beside it; what was not recorded is
said to be missing. The text is in model_card.md, a jinja template.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from captioning.checkpoint import read_history
from captioning.metrics.score_table import factor_of, mode_of

Contents = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("model_card.md")
HEAD = ModelCardData(
    library_name="captioning",
    pipeline_tag="image-to-text",
    tags=["image-captioning"],
    license="other",
)
WORST = 3  # captions that the card quotes


def model_card(
    kind: str,
    checkpoint: Contents,
    run: Contents | None,
    data: str | None,
    captions: Path | None,
    evaluation: Contents | None,
) -> str:
    """Return the card of a checkpoint that is exported as `kind`.

    `run` is its run.json, `data` the choice of conf/data, `captions` the table of its validation
    captions, `evaluation` a scores.json of it; each may be missing.
    """
    contents = checkpoint["captioning"]
    config = contents["config"]
    metrics = _history_of(checkpoint)
    scores = {key[4:]: _format_score(key, metrics[key]) for key in metrics if key[:4] == "val/"}
    worst_key, worst = _worst_captions(captions)
    card = ModelCard.from_template(
        HEAD,
        template_path=str(TEMPLATE),
        kind=kind,
        config=config,
        encoder=contents["encoder"],
        decoder=config["model"]["_target_"].rpartition(".")[2],
        parameters=_count_parameters(checkpoint["state_dict"]),
        words=len(contents["vocabulary"]) - 4,
        run=run,
        data="scenes" if config["data"]["_target_"].endswith(".Scenes") else data,
        root=Path(config["data"].get("root") or "").name,
        epoch=checkpoint["epoch"],
        is_best=_is_best(checkpoint),
        metrics=metrics,
        scores=scores,
        validation_search=_describe_search(config["callbacks"].get("captions") or {}),
        evaluation=evaluation,
        evaluation_search=_describe_search(evaluation or {}),
        evaluation_scores=_evaluation_scores(evaluation) if evaluation else {},
        worst_key=worst_key,
        worst=worst,
    )
    return card.content + "\n"


def _history_of(checkpoint: Contents) -> Mapping[str, float]:
    """Return the metrics of the epoch that a checkpoint is of, {} where it has none."""
    return read_history(checkpoint).get(checkpoint["epoch"], {})


def _is_best(checkpoint: Contents) -> bool:
    """Return whether no epoch before a checkpoint's had a better monitored score."""
    monitor = checkpoint["captioning"]["config"]["monitor"]
    scores = [row[monitor] for row in read_history(checkpoint).values() if monitor in row]
    own = _history_of(checkpoint).get(monitor)
    return own is None or own == (max if mode_of(monitor) == "max" else min)(scores)


def _count_parameters(state_dict: Contents) -> int:
    """Count the trained weights; tied ones, which share their memory, count once."""
    trained = [
        weight
        for key, weight in state_dict.items()
        if "running_" not in key and weight.is_floating_point()
    ]
    return sum({weight.data_ptr(): weight.numel() for weight in trained}.values())


def _describe_search(options: Contents) -> dict[str, Any]:
    """Return the search and rerank of `options` as text, and whether the ONNX graph does the same.

    The graph searches greedily, 20 words at most.
    """
    search = options.get("search") or {"_target_": "teacher forcing"}
    name = search["_target_"].rpartition(".")[2]
    words = [f"{k}={v}" for k, v in search.items() if isinstance(v, int | float) and k[0] != "_"]
    rerank = options.get("rerank")
    if rerank:
        words.append(f"and {rerank['_target_'].rpartition('.')[2]}")
    is_of_graph = name == "greedy_search" and search.get("max_length", 20) == 20
    return {"text": " ".join([name, *words]), "is_of_graph": is_of_graph}


def _evaluation_scores(evaluation: Contents) -> dict[str, str]:
    scores = {key: _format_score(key, value) for key, value in evaluation["scores"].items()}
    for key, bounds in evaluation["intervals"].items():
        scores[key] += f" ({' to '.join(_format_score(key, bound) for bound in bounds)})"
    return scores


def _format_score(key: str, value: float) -> str:
    factor = factor_of(key)
    return f"{value:.2f}" if factor == 1 else f"{factor * value:.1f}"


def _worst_captions(captions: Path | None) -> tuple[str | None, list[dict[str, str]]]:
    """Return the score that ranks captions.csv, and its rows with the lowest; None, [] if none."""
    if not captions:
        return None, []
    with captions.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    key = next((key for key in ("semantic", "cider") if rows and key in rows[0]), None)
    return key, sorted(rows, key=lambda row: float(row[key]))[:WORST] if key else []
