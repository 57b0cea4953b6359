"""All word-overlap scores of a set of captions: hypotheses and references in, named numbers out.

Tokenized and computed as coco-caption does, without Java. Next: callbacks/ logs them.
"""

from collections.abc import Sequence

from captioning.metrics.bleu import bleu
from captioning.metrics.cider import cider_d
from captioning.metrics.rouge import rouge_l
from captioning.metrics.scores import tokenized


def caption_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return corpus scores of one caption an image against the references of that image.

    `bleu1` to `bleu4` and `rouge_l` run from 0 to 1, `cider` (CIDEr-D) from 0 to 10. `distinct`
    is the share of captions left when repeated ones count once; `words` is their mean length.
    Raises UserError as `tokenized` and `cider_d` do.
    """
    captions = [hypothesis for hypothesis, _ in tokenized(hypotheses, references)]
    orders = bleu(hypotheses, references).corpus
    return {
        **{f"bleu{n}": float(score) for n, score in enumerate(orders, 1)},
        "rouge_l": rouge_l(hypotheses, references).corpus,
        "cider": cider_d(hypotheses, references).corpus,
        "distinct": len(set(captions)) / len(captions),
        "words": sum(map(len, captions)) / len(captions),
    }
