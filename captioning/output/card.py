"""The model card of an exported folder: what it is, what it was trained on, how good it is.

A checkpoint and what its run left beside it enter; the text of README.md leaves. No number is
typed by hand: what was not recorded is said to be missing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.metrics.score_table import factor_of, mode_of
from captioning.training.resume import read_history

Contents = Mapping[str, Any]

HEAD = """---
library_name: captioning
pipeline_tag: image-to-text
tags: [image-captioning]
license: other
---
# {name}: a picture in, a sentence out

A frozen `{encoder}` looks at the picture; a `{model}` of {parameters:,} trained weights writes one
sentence with the {words:,} words it knows. {origin}

## Use

{use}

"""
USE = {
    "safetensors": """```python
from captioning.captioner import Captioner

captioner = Captioner.from_pretrained("FOLDER")  # this folder; nothing in it is a pickle
captioner("holiday.jpg")
```

For many pictures: `python -m captioning.caption ckpt=FOLDER images=holiday/ out=captions.csv`.""",
    "onnx": """```
pip install numpy pillow onnxruntime
python caption.py holiday.jpg
```

`caption.onnx` holds the encoder, the decoder and greedy search: `pixels`, uint8
`[batch {size} {size} 3]` (RGB, upright, resized as `config.json` and `caption.py` say), become
`tokens`, int64 `[batch time]`, places in the `vocabulary` of `config.json`, where 2 ends a caption.
`caption.py` is the whole of it in Python, to be read for other languages.""",
}
FLICKR8K = """Flickr8k (Hodosh, Young and Hockenmaier 2013), photographs from Flickr, mostly of
people and dogs, with five captions each by crowd workers. **Licence: for research use only; the
pictures belong to their photographers.** Whoever publishes with it cites M. Hodosh, P. Young and
J. Hockenmaier, "Framing Image Description as a Ranking Task: Data, Models and Evaluation Metrics",
Journal of Artificial Intelligence Research 47, 853–899."""
SCENES = """Drawn scenes: coloured shapes, drawn by this program with captions that are true by
construction. **Licence: nobody's rights are in them.** It knows nothing of photographs."""
UNKNOWN = """A folder of its trainer's, `{root}`. **Licence: not known to this program; write it
here before you publish.**"""
LIMITS = """- It has no other words than its vocabulary, and of what it has not seen it says the
  nearest thing that it has.
- It is as sure when it is wrong: nothing in a caption says so.
- Of people it says sex and age by their looks, as its captions do; do not decide anything about
  anybody by it, nor let it alone describe pictures to those who cannot see them.
- Counts, left and right, writing in the picture and small things are what such models get wrong
  most."""
NOT_SCORED = """**The captions of this graph, which searches greedily, were not scored.**
`python -m captioning.evaluate ckpt=PATH search=greedy` scores them, and `captioning.export` puts
its scores.json here by `scores=FILE`.

"""
MEASURED = "- Measured with the search of `val` above:"
SHARES = "x100; loss is in nats a word, words are counted"


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
    config, encoder = contents["config"], contents["encoder"]
    origin = f"Trained by `{run['command']}`." if run else "The command of its training is unknown."
    trained = [v for key, v in checkpoint["state_dict"].items() if "running_" not in key]
    head = HEAD.format(
        name=config["name"],
        encoder=encoder["name"],
        model=config["model"]["_target_"].rpartition(".")[2],
        # By their places in memory: tied weights count once.
        parameters=sum(
            {one.data_ptr(): one.numel() for one in trained if one.is_floating_point()}.values()
        ),
        words=len(contents["vocabulary"]) - 4,
        origin=origin,
        use=USE[kind].replace("{size}", str(encoder["image_size"])),
    )
    parts = {
        "Data": _data(checkpoint, data),
        "Scores": _scores(kind, checkpoint, evaluation),
        "Known failures": _failures(checkpoint, captions),
        "Encoder": _encoder(encoder),
        "Where it comes from": _provenance(checkpoint, run),
    }
    return head + "\n".join(f"## {title}\n\n{text}\n" for title, text in parts.items())


def history_of(checkpoint: Contents) -> Mapping[str, float]:
    """Return the metrics of the epoch that a checkpoint is of, {} where it has none."""
    return read_history(checkpoint).get(checkpoint["epoch"], {})


def _is_best(checkpoint: Contents) -> bool:
    """Say whether no epoch before a checkpoint's had a better monitored score."""
    monitor = checkpoint["captioning"]["config"]["monitor"]
    scores = [row[monitor] for row in read_history(checkpoint).values() if monitor in row]
    own = history_of(checkpoint).get(monitor)
    return own is None or own == (max if mode_of(monitor) == "max" else min)(scores)


def _data(checkpoint: Contents, choice: str | None) -> str:
    config = checkpoint["captioning"]["config"]
    source = config["data"]
    if source["_target_"].endswith(".Scenes"):
        text = SCENES
    elif choice == "flickr8k":
        text = FLICKR8K
    else:
        text = UNKNOWN.format(root=Path(source["root"]).name)
    return (
        f"{text}\n\nSplit: trained on `train`, the epoch {'' if _is_best(checkpoint) else 'not '}"
        f"chosen on `val` by `{config['monitor']}`. The vocabulary is of the words that `train` "
        f"has at least {config['datamodule']['min_count']} times."
    )


def _scores(kind: str, checkpoint: Contents, evaluation: Contents | None) -> str:
    scores = {k: v for k, v in history_of(checkpoint).items() if k.startswith("val/")}
    searches = [_validation_search(checkpoint)] if scores else []
    searches += [evaluation["search"]] if evaluation else []
    text = ""
    if kind == "onnx" and not any(map(_is_graphs, searches)):
        text = NOT_SCORED
    if scores:
        text += (
            f"Of epoch {checkpoint['epoch']}, on the `val` split"
            f"{', which also chose the epoch' * _is_best(checkpoint)}, with "
            f"{_named(kind, searches[0])}; {SHARES}. Written by the training command above.\n\n"
            f"{_table({k.removeprefix('val/'): _shown(k, v) for k, v in scores.items()})}\n"
        )
    else:
        text += "No scores are in the checkpoint: this model was not measured.\n"
    if not evaluation:
        return (
            text + "\nNo evaluation was given to the export: the `test` split is not scored here."
        )
    rows = {key: _shown(key, value) for key, value in evaluation["scores"].items()}
    for key, bounds in evaluation["intervals"].items():
        rows[key] += f" ({' to '.join(_shown(key, bound) for bound in bounds)})"
    return text + (
        f"\nOn the {evaluation['pictures']:,} pictures of `{evaluation['split']}`, with "
        f"{_named(kind, searches[-1])}, {SHARES}; with 95 % intervals, by "
        f"`{evaluation['command']}` at commit `{evaluation['commit']}`:\n\n{_table(rows)}"
    )


def _validation_search(checkpoint: Contents) -> Contents:
    captions = checkpoint["captioning"]["config"]["callbacks"].get("captions") or {}
    return captions.get("search", {"_target_": "teacher forcing"})


def _is_graphs(search: Contents) -> bool:
    """Say whether a search is that of the ONNX graph: greedy, 20 words at most."""
    return search["_target_"].endswith(".greedy_search") and search.get("max_length", 20) == 20


def _named(kind: str, search: Contents) -> str:
    other = kind == "onnx" and not _is_graphs(search)
    return f"`{_plain(search)}`{', not with this graph' if other else ''}"


def _failures(checkpoint: Contents, captions: Path | None) -> str:
    lines = [LIMITS]
    scores = history_of(checkpoint)
    if "val/distinct" in scores:
        lines.append(
            f"{MEASURED} it repeats itself; of 100 captions of validation pictures, "
            f"{100 * scores['val/distinct']:.0f} differ."
        )
    if captions:
        with captions.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        key = next((key for key in ("semantic", "cider") if rows and key in rows[0]), None)
        worst = sorted(rows, key=lambda row: float(row[key]))[:3] if key else []
        if worst:
            said = "; ".join(f"“{row['caption']}” of `{row['image']}`" for row in worst)
            lines.append(f"{MEASURED} its worst validation captions by `{key}` are {said}.")
    return "\n".join(lines)


def _encoder(encoder: Contents) -> str:
    return (
        f"`{encoder['name']}`, {encoder['features']} features of {encoder['image_size']} x "
        f"{encoder['image_size']} pixels, frozen. SHA-256 of its weights: `{encoder['weights']}`. "
        "They have the licence of those who published them."
    )


def _provenance(checkpoint: Contents, run: Contents | None) -> str:
    config = checkpoint["captioning"]["config"]
    rows = {"seed": str(config["seed"]), "epoch": str(checkpoint["epoch"])}
    if not run:
        return _table(rows) + "\n\nNo run.json lay beside the checkpoint: nothing more is known."
    dirty = ", with changes that are not in it" if run["dirty"] else ""
    rows |= {
        "command": f"`{run['command']}`",
        "commit": f"`{run['commit']}`{dirty}",
        "started": run["started"],
        "hardware": run["hardware"]["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    }
    return _table(rows)


def _shown(key: str, value: float) -> str:
    factor = factor_of(key)
    return f"{value:.2f}" if factor == 1 else f"{factor * value:.1f}"


def _plain(search: Contents) -> str:
    name = search["_target_"].rpartition(".")[2]
    options = [f"{k}={v}" for k, v in search.items() if isinstance(v, int | float) and k[0] != "_"]
    return " ".join([name, *options])


def _table(rows: Mapping[str, str], head: Sequence[str] = ("", "")) -> str:
    lines = [f"| {' | '.join(head)} |", "|---|---|"]
    return "\n".join(lines + [f"| {key} | {value} |" for key, value in rows.items()])
