"""The neighbours choose: by hand, with every sentence of a tiny model in the beam."""

import numpy as np
import pytest
import torch
from tiny import decoder, features

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.metrics.reward import CiderReward
from captioning.search.beam import beam_search
from captioning.search.rerank import NeighbourRerank

VOCABULARY = Vocabulary([*SPECIALS, "cat", "dog", "runs"])
SAID = [["cat runs", "cat"], ["dog dog"], ["runs cat", "runs", "cat cat"], ["dog runs"]]
RECORDS = [Record(str(at), f"{at}.jpg", said, "train") for at, said in enumerate(SAID)]
SEEN = torch.tensor([[9.0, 0, 0, 0, 1], [0, 9, 0, 0, 2], [0, 0, 9, 0, 3], [0, 0, 0, 9, 4]])


def found(asked, records=RECORDS, seen=SEEN, **options):
    """Search among the training pictures, with room for all twelve sentences of two words."""
    place = {record.image_id: at for at, record in enumerate(RECORDS)}
    rerank = NeighbourRerank(CiderReward, **options).fit(
        records, lambda some: seen[[place[one.image_id] for one in some]], VOCABULARY
    )
    return rerank(beam(asked), asked)


def beam(asked, width=12):
    return beam_search(decoder(), asked, width=width, max_length=2)


def texts(hypotheses):
    return [VOCABULARY.decode(rows[0]) for rows in hypotheses.tokens.tolist()]


def test_a_picture_gets_what_was_said_of_the_one_most_alike():
    order = [1, 3, 1]
    first = texts(found(0.9 * SEEN[order], temperature=0.01, likelihood=0.0))
    assert first == [SAID[at][0] for at in order]


def test_a_caption_scores_what_kernel_ridge_regression_expects_it_to_earn():
    pictures = features(3)
    ours = found(pictures, temperature=0.5, ridge=0.4, likelihood=0.2)
    rows = np.repeat(np.arange(4), [len(said) for said in SAID])
    reward = CiderReward(rows, [VOCABULARY.encode(one)[1:] for said in SAID for one in said])
    plain = beam_search(decoder(), pictures, width=12, max_length=2)
    roots = SEEN.sqrt()
    unit = torch.nn.functional.normalize((roots - roots.mean(0)) / roots.std(0))
    signed = pictures.sign() * pictures.abs().sqrt()
    own = torch.nn.functional.normalize((signed - roots.mean(0)) / roots.std(0))
    kernel = ((unit @ unit.T - 1) / 0.5).exp() + 0.4 * torch.eye(4)
    shares = torch.linalg.solve(kernel, ((own @ unit.T - 1) / 0.5).exp().T).T
    for row in range(3):
        expected = {}
        for tokens, score in zip(plain.tokens[row], plain.scores[row], strict=True):
            earned = [reward(np.array([at]), tokens[None].numpy())[0] for at in range(4)]
            mean = float(shares[row] @ torch.tensor(earned).float())
            expected[tuple(tokens.tolist())] = mean + 0.2 * float(score)
        for tokens, score in zip(ours.tokens[row], ours.scores[row], strict=True):
            assert float(score) == pytest.approx(expected[tuple(tokens.tolist())], abs=1e-5)
    assert (ours.scores.diff() <= 0).all()


def test_bfloat16_around_the_search_does_not_blur_the_kernel():
    pictures = features()
    with torch.autocast("cpu", torch.bfloat16):
        blurred = found(pictures, likelihood=0.0).scores
    torch.testing.assert_close(blurred, found(pictures, likelihood=0.0).scores)


def test_equal_pictures_and_hardly_any_temperature_are_no_error():
    twice = [Record(f"{at}", "a.jpg", SAID[at % 4], "train") for at in range(8)]
    rerank = NeighbourRerank(CiderReward, temperature=1e-9)
    seen = torch.cat([SEEN, SEEN])
    rerank = rerank.fit(twice, lambda some: seen[[int(one.image_id) for one in some]], VOCABULARY)
    assert torch.isfinite(rerank(beam(features()), features()).scores).all()


def test_of_too_many_training_pictures_evenly_chosen_ones_count():
    pictures = features()
    half = found(pictures, records=RECORDS[::2], seen=SEEN)
    assert torch.equal(found(pictures, max_images=3).scores, half.scores)


def test_with_likelihood_alone_the_beam_stays_as_it_was():
    pictures = features()
    plain = beam_search(decoder(), pictures, width=12, max_length=2)
    assert texts(found(pictures, likelihood=1e6)) == texts(plain)


def test_the_order_of_the_training_pictures_does_not_matter():
    pictures = features()
    theirs = found(pictures, records=RECORDS[::-1])
    ours = found(pictures)
    assert torch.equal(ours.tokens[:, 0], theirs.tokens[:, 0])
    torch.testing.assert_close(ours.scores, theirs.scores)


def test_regions_are_averaged():
    pictures = features()
    noise = torch.randint(1, 9, (4, 1, 5)) * torch.tensor(
        [[-1.0], [0], [1]]
    )  # exactly 0 on average
    regions = noise + SEEN[:, None]
    grid = found(pictures, seen=regions)
    torch.testing.assert_close(grid.scores, found(pictures).scores)


def test_who_has_no_training_pictures_is_told_so():
    for few in ([], RECORDS[:1], [RECORDS[0], RECORDS[1]._replace(captions=())]):
        with pytest.raises(
            UserError, match=f"these data have {min(len(few), 1)}; type rerank=null"
        ):
            found(features(), records=few)


def test_a_channel_that_is_the_same_in_all_training_pictures_counts_for_nothing():
    dead = SEEN * torch.tensor([1.0, 1, 1, 1, 0])
    lit = dead[[1, 3]] + torch.tensor([0.0, 0, 0, 0, 5])
    assert texts(found(lit, seen=dead, temperature=0.01, likelihood=0.0)) == ["dog dog", "dog runs"]


def test_what_fills_up_a_beam_stays_last():
    rerank = NeighbourRerank(CiderReward, likelihood=0.0).fit(
        RECORDS, lambda some: SEEN[[int(one.image_id) for one in some]], VOCABULARY
    )
    hypotheses = rerank(beam(features(), width=50), features())
    assert (hypotheses.scores[:, :12] > -torch.inf).all()
    assert (hypotheses.scores[:, 12:] == -torch.inf).all()
