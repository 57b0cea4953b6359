"""The semantic score and BERTScore, with a real BERT, and by hand on random vectors."""

import math
import warnings

import pytest
import torch

from captioning.metrics.bert_similarity import Tokens
from captioning.metrics.semantic import Corpus, bert_score, semantic

REFERENCES = [
    ["Two brown dogs run on the beach .", "A pair of dogs race over wet sand ."],
    ["A man in a red jacket climbs a rock .", "A climber in red hangs from a cliff ."],
    ["A little girl is jumping into a pool .", "A child in a swimsuit leaps into water ."],
]


@pytest.fixture
def score(text_encoder):
    """Return a function that scores captions of the first image."""
    references = [text_encoder.tokens(texts) for texts in REFERENCES]
    corpus = Corpus.of(references)
    weighted = [corpus.weigh(text) for text in references[0]]

    def run(*captions):
        hypotheses = [corpus.weigh(text) for text in text_encoder.tokens(captions)]
        return semantic(hypotheses, [weighted] * len(captions)).tolist()

    return run


def score_by_hand(hypothesis, references, corpus):
    """The formula, one pair of tokens at a time."""
    images = [{int(token) for text in texts for token in text.ids} for texts in corpus]
    vectors = [vector for texts in corpus for text in texts for vector in text.vectors]
    mean = sum(vectors) / len(vectors)

    def weigh(text):
        counts = [sum(int(token) in image for image in images) for token in text.ids]
        weights = [1 + math.log((1 + len(images)) / (1 + count)) for count in counts]
        return [(w, v - mean) for w, v in zip(weights, text.vectors, strict=True)]

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    def match(tokens, others):
        total = sum(w * max(cosine(v, u) for _, u in others) for w, v in tokens)
        return total / sum(w for w, _ in tokens)

    def sentence(tokens):
        return sum(w * v for w, v in tokens)

    tokens, others = weigh(hypothesis), [weigh(text) for text in references]
    precision = match(tokens, [pair for text in others for pair in text])
    recall = [match(text, tokens) for text in others]
    sentences = [cosine(sentence(text), sentence(tokens)) for text in others]
    return (precision + sum(recall) / len(others) + sum(sentences) / len(others)) / 3


def test_the_formula_by_hand():
    generator = torch.Generator().manual_seed(0)

    def text(*ids):
        return Tokens(torch.tensor(ids), torch.randn(len(ids), 8, generator=generator))

    references = [[text(1, 5, 6, 2), text(1, 5, 2)], [text(1, 5, 7, 8, 2)]]
    hypotheses = [text(1, 6, 9, 2), text(1, 2)]
    corpus = Corpus.of(references)
    weighted = [[corpus.weigh(text) for text in texts] for texts in references]
    scores = semantic([corpus.weigh(text) for text in hypotheses], weighted)
    expected = [
        score_by_hand(hypothesis, texts, references)
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("better", "worse", "margin"),
    [
        ("Dogs are running along the shore .", "A girl swims in a pool .", 0.3),
        ("A dog .", "", 0),
        *[
            ("Two brown dogs run on the beach .", worse, 0.02)
            for worse in (
                "Five brown dogs run on the beach .",
                "Two brown cats run on the beach .",
                "Two brown dogs sleep on the beach .",
                "beach the on dogs run . brown Two",
                "Two brown dogs",
            )
        ],
    ],
)
def test_a_caption_that_is_wrong_or_broken_scores_lower(score, better, worse, margin):
    high, low = score(better, worse)
    assert high > low + margin
    assert low >= -1
    assert score(better) == pytest.approx([high], abs=1e-5)  # whatever the other captions


def test_bert_score_equals_that_of_torchmetrics(text_encoder):
    """One pair at a time: of many it mixes up the images (its issue 2728)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.text.bert import bert_score as reference

    options = {"model": text_encoder.model, "user_tokenizer": text_encoder.tokenizer}
    options |= {"max_length": 64, "truncation": True, "num_layers": 6, "device": "cpu"}
    hypotheses = ["Dogs run over wet sand .", "A man climbs a rock .", "Someone jumps ."]
    for hypothesis, texts in zip(hypotheses, REFERENCES, strict=True):
        expected = max(float(reference([hypothesis], [text], **options)["f1"]) for text in texts)
        tokens = text_encoder.tokens([hypothesis]), [text_encoder.tokens(texts)]
        assert bert_score(*tokens).tolist() == pytest.approx([expected], abs=1e-5)


def test_bert_score_of_an_empty_caption_is_0(text_encoder):
    tokens = text_encoder.tokens([""]), [text_encoder.tokens(["a dog"])]
    assert bert_score(*tokens).tolist() == [0]
