import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from captioning.data.vocabulary import EOS, PAD
from captioning.metrics.cider import cider_d
from captioning.metrics.reward import CiderReward

captions = st.lists(st.integers(4, 9), min_size=1, max_size=9)
images = st.lists(
    st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=2, max_size=8
)


def text(words):
    """A word for each id; the end of the sentence is one."""
    return " ".join(f"w{word}" for word in [*words, EOS])


def padded(many):
    tokens = np.full((len(many), 1 + max(map(len, many))), PAD)
    for row, words in zip(tokens, many, strict=True):
        row[: len(words) + 1] = [*words, EOS]
    return tokens


@given(images, st.randoms())
def test_the_reward_is_cider_d_with_the_end_as_a_word(images, random):
    pairs = [(3 * at, [*one, EOS]) for at, (_, many) in enumerate(images) for one in many]
    random.shuffle(pairs)
    reward = CiderReward(np.array([row for row, _ in pairs]), [one for _, one in pairs])
    hypotheses = [hypothesis for hypothesis, _ in images]
    expected = cider_d(list(map(text, hypotheses)), [list(map(text, many)) for _, many in images])
    rewards = reward(3 * np.arange(len(images)), padded(hypotheses))
    np.testing.assert_allclose(rewards, expected.per_image, atol=1e-9)


def test_many_captions_of_a_picture_are_scored_each_for_itself():
    references = [[4, 5, 6, EOS], [7, 8, EOS], [9, EOS]]
    reward = CiderReward(np.array([0, 1, 2]), references)
    rewards = reward(np.array([0, 0, 1, 1]), padded([[4, 5, 6], [7, 8], [4, 5, 6], [7, 8]]))
    assert rewards[0] > 5 > rewards[1]
    assert rewards[3] > 5 > rewards[2]


@given(images, st.data())
def test_blended_rewards_are_those_of_each_picture_times_its_share(images, data):
    pairs = [(7 * at, [*one, EOS]) for at, (_, many) in enumerate(images) for one in many]
    reward = CiderReward(np.array([row for row, _ in pairs]), [one for _, one in pairs])
    tokens = padded([hypothesis for hypothesis, _ in images])
    share = st.floats(-2, 2, width=16)
    shares = np.array([data.draw(share) for _ in images])
    apart = [
        share * reward(np.full(len(tokens), 7 * at), tokens) for at, share in enumerate(shares)
    ]
    np.testing.assert_allclose(reward.weighted_reward(tokens, shares), sum(apart), atol=1e-12)
