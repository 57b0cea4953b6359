"""The scores of captions equal coco-caption's Python scorers, on random and on real captions."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from captioning import UserError
from captioning.data.tokenizer import tokenize
from captioning.metrics.bleu import bleu
from captioning.metrics.cider import cider_d
from captioning.metrics.compute import caption_scores
from captioning.metrics.rouge import rouge_l

# Few words, so that n-grams repeat and match; each is one token as it stands.
WORD = st.sampled_from(["a", "dog", "runs", "on", "grass", "'s", "two"])
CAPTION = st.lists(WORD, max_size=9).map(" ".join)
IMAGE = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4))
# coco-caption's CIDEr stumbles where no reference at all has a word.
CORPUS = st.lists(IMAGE, min_size=2, max_size=6).filter(
    lambda images: any(any(references) for _, references in images)
)


def coco(scorer, hypotheses, references):
    tokenized = [
        {number: [" ".join(tokenize(caption)) for caption in captions] for number, captions in many}
        for many in (enumerate(references), enumerate([one] for one in hypotheses))
    ]
    quiet = {"verbose": 0} if isinstance(scorer, Bleu) else {}
    corpus, per_image = scorer.compute_score(*tokenized, **quiet)
    return np.array(corpus), np.array(per_image).T


def assert_equal_to_coco(hypotheses, references):
    for ours, scorer in ((bleu, Bleu(4)), (rouge_l, Rouge()), (cider_d, Cider())):
        scores = ours(hypotheses, references)
        corpus, per_image = coco(scorer, hypotheses, references)
        np.testing.assert_allclose(scores.corpus, corpus, atol=1e-9)
        np.testing.assert_allclose(scores.per_image, per_image, atol=1e-9)


@given(CORPUS)
def test_scores_equal_those_of_coco_caption(corpus):
    assert_equal_to_coco(*map(list, zip(*corpus, strict=True)))


@pytest.mark.flickr8k
def test_scores_equal_those_of_coco_caption_on_flickr8k():
    if "FLICKR8K" not in os.environ:
        pytest.skip("FLICKR8K does not name the folder of the corpus")
    folder = Path(os.environ["FLICKR8K"]) / "Flickr8k_text"
    captions: dict[str, list[str]] = {}
    for line in (folder / "Flickr8k.token.txt").read_text("utf-8").splitlines():
        key, caption = line.split("\t")
        captions.setdefault(key.split("#")[0], []).append(caption)
    images = [captions[name] for name in (folder / "Flickr_8k.devImages.txt").read_text().split()]
    hypotheses, references = [one[0] for one in images], [one[1:] for one in images]
    assert_equal_to_coco(hypotheses, references)
    assert caption_scores(hypotheses, references).corpus["cider"] == pytest.approx(
        0.80366, abs=1e-5
    )


def test_all_scores_have_a_name():
    scores = caption_scores(
        ["A dog runs fast.", "a cat"], [["a dog runs fast"], ["two cats"]]
    ).corpus
    assert " ".join(scores) == "cider bleu1 bleu2 bleu3 bleu4 rouge_l distinct words"
    assert all(isinstance(score, float) for score in scores.values())
    assert scores["words"] == 3


def test_distinct_counts_captions_that_differ_in_words():
    scores = caption_scores(["A dog.", "a dog", "a cat", "a bird"], [["a dog"]] * 4).corpus
    assert scores["distinct"] == 0.75


@pytest.mark.parametrize("score", [bleu, rouge_l, cider_d, caption_scores])
@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a dog"], [["a dog"], ["a cat"]], "1 hypotheses but references of 2 images"),
        ([], [], "no caption to score"),
        (["a dog", "a cat"], [["a dog"], []], r"references\[1\] is \[\]"),
        (["a dog", "a cat"], ["a dog", "a cat"], r"references\[0\] is 'a dog'"),
    ],
)
def test_captions_that_do_not_fit_together_are_an_error(score, hypotheses, references, message):
    with pytest.raises(UserError, match=message):
        score(hypotheses, references)
