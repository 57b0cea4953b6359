"""Reranking by training images: by hand, with every caption of a tiny model in the beam."""

import numpy as np
import pytest
import torch
from stores import TinyStore
from tiny import decoder, features
from torch.nn.functional import normalize

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.metrics.reward import CiderReward
from captioning.search.beam import beam_search
from captioning.search.rerank import NeighbourRerank

VOCABULARY = Vocabulary([*SPECIALS, "cat", "dog", "runs"])
CAPTIONS = [["cat runs", "cat"], ["dog dog"], ["runs cat", "runs", "cat cat"], ["dog runs"]]
RECORDS = [Record(str(at), "", captions, "train") for at, captions in enumerate(CAPTIONS)]
TRAINING = torch.tensor([[9.0, 0, 0, 0, 1], [0, 9, 0, 0, 2], [0, 0, 9, 0, 3], [0, 0, 0, 9, 4]])


def search(images, width=12):  # there are twelve captions of up to two words
    return beam_search(decoder(), images, width=width, max_length=2)


def rerank(images, records=RECORDS, training=TRAINING, width=12, **options):
    fitted = NeighbourRerank(CiderReward, **options).fit(records, TinyStore(training), VOCABULARY)
    return fitted(search(images, width), images)


def best_texts(hypotheses):
    return [VOCABULARY.decode(rows[0]) for rows in hypotheses.tokens.tolist()]


def test_an_image_gets_a_caption_of_the_one_most_alike():
    order = [1, 3, 1]
    hypotheses = rerank(0.9 * TRAINING[order], temperature=0.01, likelihood=0.0)
    assert best_texts(hypotheses) == [CAPTIONS[at][0] for at in order]


def test_scores_are_the_rewards_that_kernel_ridge_regression_predicts():
    images = features(3)
    references = [VOCABULARY.encode(text)[1:] for captions in CAPTIONS for text in captions]
    reward = CiderReward(np.repeat(np.arange(4), [len(of) for of in CAPTIONS]), references)
    roots, signed = TRAINING.sqrt(), images.sign() * images.abs().sqrt()
    training, own = (normalize((x - roots.mean(0)) / roots.std(0)) for x in (roots, signed))
    kernel = ((training @ training.T - 1) / 0.5).exp() + 0.4 * torch.eye(4)
    weights = torch.linalg.solve(kernel, ((own @ training.T - 1) / 0.5).exp().T).T
    hypotheses = rerank(images, temperature=0.5, ridge=0.4, likelihood=0.2)
    for row, (before, log_probs) in enumerate(zip(*search(images), strict=True)):
        expected = {}
        for tokens, log_prob in zip(before, log_probs, strict=True):
            rewards = [reward(np.array([at]), tokens[None].numpy())[0] for at in range(4)]
            predicted = float(weights[row] @ torch.tensor(rewards).float())
            expected[tuple(tokens.tolist())] = predicted + 0.2 * float(log_prob)
        scores = [expected[tuple(tokens)] for tokens in hypotheses.tokens[row].tolist()]
        assert hypotheses.scores[row].tolist() == pytest.approx(scores, abs=1e-5)
    assert (hypotheses.scores.diff() <= 0).all()


def test_bfloat16_around_the_search_does_not_blur_the_kernel():
    with torch.autocast("cpu", torch.bfloat16):
        in_bfloat16 = rerank(features(), likelihood=0.0).scores
    torch.testing.assert_close(in_bfloat16, rerank(features(), likelihood=0.0).scores)


def test_equal_images_and_hardly_any_temperature_are_no_error():
    twice = [Record(f"{at}", "", CAPTIONS[at % 4], "train") for at in range(8)]
    hypotheses = rerank(features(), twice, torch.cat([TRAINING, TRAINING]), temperature=1e-9)
    assert torch.isfinite(hypotheses.scores).all()


def test_of_too_many_training_images_evenly_spaced_ones_count():
    half = rerank(features(), records=RECORDS[::2])
    assert torch.equal(rerank(features(), max_images=3).scores, half.scores)


def test_regions_are_averaged():
    signs = torch.tensor([[-1.0], [0], [1]])
    regions = TRAINING[:, None] + torch.randint(1, 9, (4, 1, 5)) * signs  # exactly 0 on average
    hypotheses = rerank(features(), training=regions)
    torch.testing.assert_close(hypotheses.scores, rerank(features()).scores)


def test_a_channel_that_is_the_same_in_all_training_images_counts_for_nothing():
    dead = TRAINING * torch.tensor([1.0, 1, 1, 1, 0])
    images = dead[[1, 3]] + torch.tensor([0.0, 0, 0, 0, 5])
    hypotheses = rerank(images, training=dead, temperature=0.01, likelihood=0.0)
    assert best_texts(hypotheses) == ["dog dog", "dog runs"]


def test_empty_captions_of_a_beam_stay_last():
    scores = rerank(features(), width=50, likelihood=0.0).scores
    assert (scores[:, :12] > -torch.inf).all()
    assert (scores[:, 12:] == -torch.inf).all()


@pytest.mark.parametrize(
    "records", [[], RECORDS[:1], [RECORDS[0], RECORDS[1]._replace(captions=())]]
)
def test_fewer_than_two_training_images_are_an_error(records):
    with pytest.raises(UserError, match="two training images with captions"):
        rerank(features(), records=records)
