"""What every decoder promises (the contract in DESIGN and CONTRIBUTING)."""

import pytest
import torch

from captioning.data.records import UserError
from captioning.data.vocabulary import BOS
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder

WORDS, FEATURE, BATCH, TIME = 11, 6, 3, 5


def decoders():
    torch.manual_seed(0)
    yield LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7)
    yield LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7, num_layers=2, tied=True)
    yield MergeDecoder(WORDS, FEATURE, hidden_dim=8)
    yield AttentionDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=6, heads=2)


DECODERS = dict(zip(["lstm", "tied", "merge", "attention"], decoders(), strict=True))
every_decoder = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
pooled_decoder = pytest.mark.parametrize(
    "decoder", list(DECODERS.values())[:3], ids=list(DECODERS)[:3]
)


def inputs(decoder):
    torch.manual_seed(1)
    regions = (4,) if isinstance(decoder, AttentionDecoder) else ()
    return torch.randn(BATCH, *regions, FEATURE), torch.randint(4, WORDS, (BATCH, TIME))


@every_decoder
def test_forward_equals_repeated_step(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    state, steps = decoder.begin(features), []
    for time in range(TIME):
        logits, state = decoder.step(tokens[:, time], state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), decoder(features, tokens))


@every_decoder
def test_a_word_changes_no_logits_before_it(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    changed = tokens.clone()
    changed[:, 3] = BOS
    before, after = decoder(features, tokens), decoder(features, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@every_decoder
def test_the_picture_changes_the_logits(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    assert not torch.allclose(decoder(features, tokens), decoder(features.flip(0), tokens))


@every_decoder
def test_state_is_batch_first_so_that_search_may_reorder_its_rows(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    order = torch.tensor([2, 0, 1])
    state = tuple(part[order] for part in decoder.begin(features))
    logits, _ = decoder.step(tokens[:, 0], state)
    expected, _ = decoder.step(tokens[:, 0], decoder.begin(features[order]))
    torch.testing.assert_close(logits, expected)


@pooled_decoder
def test_grid_features_are_read_as_their_mean(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    grid = torch.stack([features - 1, features + 1], 1)
    torch.testing.assert_close(decoder(grid, tokens), decoder(features, tokens))


@every_decoder
def test_every_parameter_learns(decoder):
    decoder.train()
    decoder.zero_grad()
    decoder(*inputs(decoder)).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())


def test_tied_output_shares_the_embedding():
    decoder = LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7, tied=True)
    assert decoder.output.weight is decoder.embedding.weight


def test_attention_is_a_share_of_each_region():
    decoder = DECODERS["attention"].eval()
    weights = decoder.attention(*inputs(decoder))
    assert weights.shape == (BATCH, TIME, 4)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, TIME))


def test_attention_does_not_mind_where_a_region_is():
    decoder = DECODERS["attention"].eval()
    features, tokens = inputs(decoder)
    order = [2, 0, 3, 1]
    moved = features[:, order]
    torch.testing.assert_close(decoder(moved, tokens), decoder(features, tokens))
    expected = decoder.attention(features, tokens)[:, :, order]
    torch.testing.assert_close(decoder.attention(moved, tokens), expected)


def test_attention_without_regions_is_refused():
    with pytest.raises(UserError, match=r"encoder\.features=grid"):
        DECODERS["attention"].begin(torch.zeros(BATCH, FEATURE))
