"""What a search finds on a GPU is what it finds on a CPU, in float32."""

from functools import partial

import numpy as np
import pytest
import torch
from fits import DECODERS, NEEDS_GRID
from stores import TinyStore
from torch import nn

from captioning.data.records import Record
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.metrics.reward import CiderReward
from captioning.models.ensemble import Ensemble
from captioning.search.beam import beam_search, greedy_search
from captioning.search.rerank import NeighbourRerank
from captioning.search.sample import sample

WORDS, DIM, IMAGES = 60, 24, 16
SEARCHES = {
    "greedy": greedy_search,
    "beam": partial(beam_search, width=5),
    "constrained": partial(beam_search, width=4, no_repeat_ngram=2, min_length=4),
    "diverse": partial(beam_search, width=6, groups=3, diversity=0.5),
    "sample": partial(sample, samples=4, temperature=0.8, top_p=0.9),
}


def make(name):
    kind, options = DECODERS[name]
    torch.manual_seed(0)
    decoder = kind(vocabulary_size=WORDS, feature_dim=DIM, hidden_dim=32, **options).eval()
    nn.init.normal_(decoder.output.weight, std=0.7)  # so that words differ clearly
    features = torch.randn(IMAGES, *([9] if name in NEEDS_GRID else []), DIM)
    return decoder, features


def assert_equal(found, expected):
    same_scores = found.scores.cpu().isclose(expected.scores, atol=1e-4, rtol=1e-4).all(1)
    same_tokens = (found.tokens.cpu() == expected.tokens).flatten(1).all(1)
    # Where two extensions score alike, rounding chooses: a change of 1e-5 does it on a CPU, too.
    is_same = same_scores & same_tokens
    assert is_same.sum() >= IMAGES - 1 and is_same[[0, -1]].all()


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", DECODERS)
def test_hypotheses_are_the_cpus(name, search):
    decoder, features = make(name)
    expected = SEARCHES[search](decoder, features)
    assert_equal(SEARCHES[search](decoder.cuda(), features.cuda()), expected)


def test_an_ensembles_hypotheses_are_the_cpus():
    (first, features), (second, _) = make("lstm"), make("merge")
    ensemble = Ensemble([first, second])
    expected = beam_search(ensemble, features)
    assert_equal(beam_search(ensemble.cuda(), features.cuda()), expected)


def test_reranked_hypotheses_are_the_cpus():
    decoder, features = make("lstm")
    vocabulary = Vocabulary([*SPECIALS, *(f"w{number}" for number in range(WORDS - 4))])
    rng = np.random.default_rng(0)
    records = [
        Record(str(at), "", (" ".join(f"w{n}" for n in rng.integers(0, 56, 6)),), "train")
        for at in range(40)
    ]
    store = TinyStore(torch.randn(40, DIM))
    rerank = NeighbourRerank(CiderReward).fit(records, store, vocabulary)
    expected = rerank(beam_search(decoder, features), features)
    found = rerank(beam_search(decoder.cuda(), features.cuda()), features.cuda())
    assert_equal(found, expected)


@pytest.mark.parametrize("name", ["attention", "updown"])
def test_attention_weights_are_the_cpus(name):
    decoder, features = make(name)
    tokens = torch.randint(4, WORDS, (IMAGES, 7))
    expected = decoder.attention(features, tokens)
    found = decoder.cuda().attention(features.cuda(), tokens.cuda())
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-4)
