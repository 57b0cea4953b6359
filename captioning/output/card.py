"""Write the model card of an exported folder: what it is, what it was trained on, how good it is.

Every number comes from the checkpoint and what its run left beside it; what was not recorded is
said to be missing. The text is in model_card.md, a jinja template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from captioning.checkpoint import read_history
from captioning.metrics.score_table import format_score, mode_of

Contents = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("model_card.md")
WORST = 3  # captions that the card quotes
FEWEST = 10  # images; intervals of fewer say nothing


def model_card(
    kind: str,
    checkpoint: Contents,
    run: Contents | None,
    data: str | None,
    captions: Path | None,
    evaluation: Contents | None,
    dtype: str = "float32",
    sha256: str | None = None,
) -> str:
    """Return the card of a checkpoint that is exported as `kind`, its matrices in `dtype`.

    `run` is its run.json, `data` the choice of conf/data, `captions` the table of its validation
    captions, `evaluation` a scores.json of it, `sha256` that of model.safetensors; each may be
    missing.
    """
    contents = checkpoint["captioning"]
    config = contents["config"]
    epoch, history = checkpoint["epoch"], read_history(checkpoint)
    metrics = history.get(epoch, {})
    scores = {key[4:]: format_score(key, metrics[key]) for key in metrics if key[:4] == "val/"}
    worst_key, worst = _worst_captions(captions)
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"))
    card = template.render(
        code=_code,
        kind=kind,
        dtype=dtype,
        sha256=sha256,
        config=config,
        encoder=contents["encoder"],
        decoder=config["model"]["_target_"].rpartition(".")[2],
        parameters=_count_parameters(checkpoint["state_dict"]),
        words=len(contents["vocabulary"]) - 4,
        run=run,
        data="scenes" if config["data"]["_target_"].endswith(".Scenes") else data,
        root=Path(config["data"].get("root") or "").name,
        epoch=epoch,
        is_best=_is_best(history, epoch, config["monitor"]),
        metrics=metrics,
        scores=scores,
        validation_search=describe_search(config["callbacks"].get("captions") or {}),
        evaluation=evaluation,
        evaluation_search=describe_search(evaluation or {}),
        evaluation_scores=_evaluation_scores(evaluation) if evaluation else {},
        differences=_differences(evaluation) if evaluation else {},
        fewest=FEWEST,
        worst_key=worst_key,
        worst=worst,
    )
    return card + "\n"


def _code(text: str) -> str:
    """Return a text as Markdown that shows it as it is, whatever it holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _is_best(history: Mapping[int, Contents], epoch: int, monitor: str) -> bool | None:
    """Return whether no epoch up to `epoch` had a better monitored score; None if it has none."""
    scores = {number: row[monitor] for number, row in history.items() if monitor in row}
    best = max if mode_of(monitor) == "max" else min
    return scores[epoch] == best(scores.values()) if epoch in scores else None


def _count_parameters(state_dict: Contents) -> int:
    """Count the trained weights; tied ones, which share their memory, count once."""
    trained = [
        weight
        for key, weight in state_dict.items()
        if "running_" not in key and weight.is_floating_point()
    ]
    return sum({weight.data_ptr(): weight.numel() for weight in trained}.values())


def describe_search(options: Contents) -> dict[str, Any]:
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
    scores = {key: format_score(key, value) for key, value in evaluation["scores"].items()}
    for key, bounds in evaluation["intervals"].items():
        if evaluation["pictures"] >= FEWEST:
            scores[key] += f" ({' to '.join(format_score(key, bound) for bound in bounds)})"
    return scores


def _differences(evaluation: Contents) -> dict[str, str]:
    """Return by how much CIDEr-D differs from that of what was evaluated beside it."""
    texts = {}
    for pair in evaluation["differences"]:
        score = pair["scores"]["cider"]
        low, difference, high = (
            format_score("cider", value)
            for value in (score["interval"][0], score["difference"], score["interval"][1])
        )
        texts[f"{pair['first']} − {pair['second']}"] = f"{difference} ({low} to {high})"
    return texts


def _worst_captions(captions: Path | None) -> tuple[str | None, list[dict[str, str]]]:
    """Return the score that ranks captions.csv, and its rows with the lowest; None, [] if none."""
    if not captions:
        return None, []
    text = {"image": str, "caption": str}
    table = pd.read_csv(captions, dtype=text, na_filter=False)  # a caption may be "None"
    key = next((key for key in ("semantic", "cider") if key in table), None)
    worst = min(WORST, (len(table) + 1) // 2)  # of few, not those that are the best, too
    return key, table.nsmallest(worst, key).to_dict("records") if key else []
