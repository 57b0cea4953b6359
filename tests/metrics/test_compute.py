"""The scores of captions equal coco-caption's Python scorers, on random and on real captions."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from captioning import UserError
from captioning.data.readers import CaptionFolder
from captioning.data.tokenizer import tokenize
from captioning.metrics.bleu import bleu_counts
from captioning.metrics.cider import cider_d
from captioning.metrics.compute import (
    aggregate_scores,
    caption_scores,
    compute_statistics,
    corpus_scores,
    text_inputs,
)
from captioning.metrics.rouge import rouge_l

# Few words, so that n-grams repeat and match; each is one token as it stands.
WORD = st.sampled_from(["a", "dog", "runs", "on", "grass", "'s", "two"])
CAPTION = st.lists(WORD, max_size=9).map(" ".join)
IMAGE = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4))
# coco-caption's CIDEr stumbles where no reference at all has a word.
CORPUS = st.lists(IMAGE, min_size=2, max_size=6).filter(
    lambda images: any(any(references) for _, references in images)
)


def assert_equal_to_coco(hypotheses, references):
    tokenized = [
        {at: [" ".join(tokenize(caption)) for caption in captions] for at, captions in rows}
        for rows in (enumerate(references), enumerate([caption] for caption in hypotheses))
    ]
    statistics = compute_statistics(text_inputs(hypotheses, references))
    per_image, corpus = aggregate_scores(statistics, 1), corpus_scores(statistics)
    bleu = [f"bleu{order}" for order in range(1, 5)]
    for keys, scorer in ((bleu, Bleu(4)), (["rouge_l"], Rouge()), (["cider"], Cider())):
        quiet = {"verbose": 0} if isinstance(scorer, Bleu) else {}
        expected, of_images = scorer.compute_score(*tokenized, **quiet)
        np.testing.assert_allclose([corpus[key] for key in keys], np.ravel(expected), atol=1e-9)
        of_images = np.reshape(of_images, (len(keys), -1))
        np.testing.assert_allclose([per_image[key] for key in keys], of_images, atol=1e-9)


@given(CORPUS)
def test_scores_equal_those_of_coco_caption(corpus):
    assert_equal_to_coco(*map(list, zip(*corpus, strict=True)))


@pytest.mark.flickr8k
def test_scores_equal_those_of_coco_caption_on_flickr8k():
    if "FLICKR8K" not in os.environ:
        pytest.skip("FLICKR8K does not name the folder of the corpus")
    records = CaptionFolder(os.environ["FLICKR8K"]).records()
    images = [record.captions for record in records if record.split == "val"]
    hypotheses, references = [of[0] for of in images], [of[1:] for of in images]
    assert_equal_to_coco(hypotheses, references)
    assert caption_scores(hypotheses, references)["cider"] == pytest.approx(0.80366, abs=1e-5)


def test_all_scores_have_a_name():
    captions = ["A dog runs fast.", "a dog runs fast", "a cat", "a bird"]
    scores = caption_scores(captions, [["a dog runs fast"], *[["two cats"]] * 3])
    assert " ".join(scores) == "cider bleu1 bleu2 bleu3 bleu4 rouge_l distinct words"
    assert all(isinstance(score, float) for score in scores.values())
    assert scores["words"] == 3
    assert scores["distinct"] == 0.75  # the first two differ in punctuation only


@pytest.mark.parametrize("score", [bleu_counts, rouge_l, cider_d, caption_scores])
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
