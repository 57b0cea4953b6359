"""The vectorized CIDEr-D against that of text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from captioning.data.vocabulary import EOS, PAD
from captioning.metrics.cider import cider_d
from captioning.metrics.reward import CiderReward

CAPTION = st.lists(st.integers(4, 9), min_size=1, max_size=9)
IMAGE = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4))
IMAGES = st.lists(IMAGE, min_size=2, max_size=8)


def to_text(ids):
    """A word for each id; the end of the caption is one."""
    return " ".join(f"w{number}" for number in [*ids, EOS])


def to_tokens(captions):
    tokens = np.full((len(captions), 1 + max(map(len, captions))), PAD)
    for row, ids in zip(tokens, captions, strict=True):
        row[: len(ids) + 1] = [*ids, EOS]
    return tokens


def reward_of(references, random=None):
    """Return the reward by the references of images in rows 0, 3, 6, …"""
    pairs = [(3 * at, [*ids, EOS]) for at, captions in enumerate(references) for ids in captions]
    if random:
        random.shuffle(pairs)
    return CiderReward(np.array([row for row, _ in pairs]), [ids for _, ids in pairs])


@given(IMAGES, st.randoms())
def test_the_reward_is_cider_d_with_the_end_as_a_word(images, random):
    hypotheses, references = zip(*images, strict=True)
    texts = [to_text(ids) for ids in hypotheses], [[*map(to_text, ids)] for ids in references]
    reward = reward_of(references, random)
    rewards = reward(3 * np.arange(len(images)), to_tokens(hypotheses))
    np.testing.assert_allclose(rewards, cider_d(*texts), atol=1e-9)


def test_many_captions_of_an_image_are_scored_each_for_itself():
    reward = reward_of([[[4, 5, 6]], [[7, 8]], [[9]]])
    rewards = reward(np.array([0, 0, 3, 3]), to_tokens([[4, 5, 6], [7, 8], [4, 5, 6], [7, 8]]))
    assert rewards[0] > 5 > rewards[1]
    assert rewards[3] > 5 > rewards[2]


@given(IMAGES, st.data())
def test_the_weighted_reward_is_the_sum_of_each_images_times_its_weight(images, data):
    hypotheses, references = zip(*images, strict=True)
    reward, tokens = reward_of(references), to_tokens(hypotheses)
    weights = np.array([data.draw(st.floats(-2, 2, width=16)) for _ in images])
    rewards = [reward(np.full(len(tokens), 3 * at), tokens) for at in range(len(images))]
    np.testing.assert_allclose(
        reward.weighted_reward(tokens, weights), weights @ rewards, atol=1e-12
    )
