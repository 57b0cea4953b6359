"""What every decoder promises (the contract in DESIGN and CONTRIBUTING)."""

import math
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder, waves
from captioning.models.updown import UpDownDecoder
from captioning.search.beam import beam_search
from captioning.search.sample import sample

WORDS, FEATURE, BATCH, TIME = 11, 6, 3, 5


def decoders():
    torch.manual_seed(0)
    return {
        "lstm": LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7),
        "tied": LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7, num_layers=2, tied=True),
        "pre": LSTMDecoder(WORDS, FEATURE, 8, 7, num_layers=2, tied=True, inject="pre"),
        "par": LSTMDecoder(WORDS, FEATURE, 8, 7, num_layers=2, tied=True, inject="par"),
        "merge": MergeDecoder(WORDS, FEATURE, hidden_dim=8),
        "attention": AttentionDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=6, heads=2),
        "updown": UpDownDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=6),
        "transformer": TransformerDecoder(WORDS, FEATURE, hidden_dim=8, heads=2),
    }


DECODERS = decoders()
REGIONAL = ["attention", "updown", "transformer"]


def of(names):
    return pytest.mark.parametrize("decoder", [DECODERS[name] for name in names], ids=names)


every_decoder = of(list(DECODERS))
pooled_decoder = of([name for name in DECODERS if name not in REGIONAL])
regional_decoder = of(REGIONAL)
looking_decoder = of(["attention", "updown"])


def inputs(decoder):
    torch.manual_seed(1)
    pooled = isinstance(decoder, LSTMDecoder | MergeDecoder)
    regions = () if pooled else (4,)
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
def test_words_may_be_read_in_parts(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    first, state = decoder.decode(tokens[:, :2], decoder.begin(features))
    second, _ = decoder.decode(tokens[:, 2:], state)
    said = decoder.output(torch.cat([first, second], 1))
    torch.testing.assert_close(said, decoder(features, tokens))


@every_decoder
def test_reading_leaves_the_state_before_as_it_was(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    state = decoder.begin(features)
    before = [part.clone() for part in state]
    decoder.decode(tokens, state)
    assert all(map(torch.equal, before, state))


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
def test_a_picture_and_its_words_change_no_other_row(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    torch.testing.assert_close(decoder(features[:1], tokens[:1]), decoder(features, tokens)[:1])


@every_decoder
def test_state_is_batch_first_so_that_search_may_reorder_its_rows(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    order = torch.tensor([2, 0, 1, 1])
    state = tuple(part[order] for part in decoder.begin(features))
    _, state = decoder.decode(tokens[order, :3], state)
    logits, _ = decoder.step(tokens[order, 3], state)
    _, state = decoder.decode(tokens[:, :3], decoder.begin(features))
    expected, _ = decoder.step(tokens[order, 3], tuple(part[order] for part in state))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(logits, decoder(features, tokens)[order, 3])


@pooled_decoder
def test_grid_features_are_read_as_their_mean(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    grid = torch.stack([features - 1, features + 1], 1)
    torch.testing.assert_close(decoder(grid, tokens), decoder(features, tokens))


@regional_decoder
def test_regions_are_not_read_as_their_mean(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    mean = features.mean(1, keepdim=True).expand_as(features)
    assert not torch.allclose(decoder(features, tokens), decoder(mean, tokens))


@every_decoder
def test_every_parameter_learns(decoder):
    decoder.train()
    decoder.zero_grad()
    decoder(*inputs(decoder)).logsumexp(-1).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in decoder.parameters())


@every_decoder
def test_dropout_is_for_training(decoder):
    inside = inputs(decoder)
    decoder.train()
    assert not torch.equal(decoder(*inside), decoder(*inside))
    decoder.eval()
    assert torch.equal(decoder(*inside), decoder(*inside))


@every_decoder
def test_low_precision_says_about_the_same(decoder):
    decoder.eval()
    inside = inputs(decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = decoder(*inside)
    torch.testing.assert_close(low.float(), decoder(*inside), atol=0.05, rtol=0.05)


@every_decoder
@pytest.mark.parametrize(
    "search", [partial(beam_search, length_penalty=0.0), sample], ids=["beam", "sample"]
)
@torch.inference_mode()
def test_the_scores_of_what_is_found_are_the_decoders(decoder, search):
    """Whatever rows a search made of others, and however its state grew."""
    decoder.eval()
    features, _ = inputs(decoder)
    tokens, scores = search(decoder, features, 4, max_length=TIME)
    rows, tokens = features.repeat_interleave(4, 0), tokens.flatten(0, 1)
    heard = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    logits = decoder(rows, heard)
    logits[..., [PAD, BOS, UNK]] = -torch.inf
    logits[:, 0, EOS] = -torch.inf
    said = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    expected = said.masked_fill(tokens == PAD, 0.0).sum(1)
    torch.testing.assert_close(scores.flatten(), expected)


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                self.size = max(self.size, one.numel())
        return made


@regional_decoder
@pytest.mark.parametrize("search", [beam_search, sample])
def test_no_search_copies_the_regions_for_each_sentence(decoder, search):
    decoder.eval()
    images, width, regions = 2, 10, 60
    features = torch.randn(images, regions, FEATURE)
    with LargestTensor() as largest:
        search(decoder, features, width, max_length=TIME)
    assert 0 < largest.size < images * width * regions * decoder.regions[1].out_features


@every_decoder
def test_what_sentences_share_changes_nothing(decoder, monkeypatch):
    decoder.eval()
    features, tokens = inputs(decoder)
    tokens = torch.cat([tokens, tokens.flip(1)])  # two sentences an image
    shared, state = decoder.decode(tokens, decoder.repeat(decoder.begin(features), 2))
    again, _ = decoder.decode(tokens, state)
    monkeypatch.setattr(decoder, "shared_parts", 0)
    copied, state = decoder.decode(tokens, decoder.repeat(decoder.begin(features), 2))
    torch.testing.assert_close(shared, copied)
    torch.testing.assert_close(again, decoder.decode(tokens, state)[0])


def test_the_picture_enters_in_three_ways_and_no_other():
    with pytest.raises(UserError, match=r"model\.inject=post: .* init, pre or par"):
        LSTMDecoder(WORDS, FEATURE, inject="post")


def test_a_picture_that_is_the_first_word_comes_before_all_others():
    """What `begin` does is to read it."""
    decoder = DECODERS["pre"].eval()
    features, _ = inputs(decoder)
    word = decoder.image(features)[:, None]
    zero = torch.zeros(decoder.lstm.num_layers, BATCH, decoder.lstm.hidden_size)
    _, (hidden, cell) = decoder.lstm(word, (zero, zero))
    expected = hidden.transpose(0, 1), cell.transpose(0, 1)
    torch.testing.assert_close(decoder.begin(features), expected)


def test_a_picture_beside_every_word_is_not_forgotten():
    """Nothing of it is in the LSTM's first state, and all of it is there for the last word."""
    decoder = DECODERS["par"].eval()
    hidden, cell, image = decoder.begin(inputs(decoder)[0])
    assert not hidden.any()
    assert not cell.any()
    _, state = decoder.decode(torch.full((BATCH, TIME), BOS), (hidden, cell, image))
    assert torch.equal(state[2], image)


def test_tied_output_shares_the_embedding():
    decoder = LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7, tied=True)
    assert decoder.output.weight is decoder.embedding.weight


@looking_decoder
def test_attention_is_a_share_of_each_region(decoder):
    decoder.eval()
    weights = decoder.attention(*inputs(decoder))
    assert weights.shape == (BATCH, TIME, 4)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, TIME))


@regional_decoder
def test_no_decoder_minds_where_a_region_is(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    moved = features[:, [2, 0, 3, 1]]
    torch.testing.assert_close(decoder(moved, tokens), decoder(features, tokens))


@looking_decoder
def test_attention_is_where_a_region_is(decoder):
    decoder.eval()
    features, tokens = inputs(decoder)
    order = [2, 0, 3, 1]
    moved = features[:, order]
    expected = decoder.attention(features, tokens)[:, :, order]
    torch.testing.assert_close(decoder.attention(moved, tokens), expected)


@looking_decoder
def test_attention_without_regions_is_refused(decoder):
    with pytest.raises(UserError, match=r"encoder\.features=grid"):
        decoder.begin(torch.zeros(BATCH, FEATURE))


def test_a_transformer_reads_a_pooled_picture_as_one_region():
    decoder = DECODERS["transformer"].eval()
    features, tokens = inputs(decoder)
    pooled = features[:, 0]
    torch.testing.assert_close(decoder(pooled, tokens), decoder(pooled[:, None], tokens))


def test_a_transformers_state_grows_by_a_place_a_word():
    decoder = DECODERS["transformer"].eval()
    features, tokens = inputs(decoder)
    state = decoder.begin(features)
    assert [part.shape[1] for part in state] == [4, 0, 0]
    _, state = decoder.decode(tokens, state)
    assert [part.shape[1] for part in state] == [4, TIME, TIME]


def test_a_transformer_knows_the_order_of_words():
    decoder = DECODERS["transformer"].eval()
    features, tokens = inputs(decoder)
    swapped = tokens[:, [1, 0, 2, 3, 4]]
    before, after = decoder(features, tokens), decoder(features, swapped)
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_places_are_told_apart_by_waves():
    """Each place is a rotation of the place before it: the sines' and cosines' squares sum to 1."""
    known = waves(torch.arange(50), 8)
    torch.testing.assert_close(known.square().sum(1), torch.full((50,), 4.0))
    torch.testing.assert_close(known[7, [0, 4]], torch.tensor([math.sin(7), math.cos(7)]))
    assert torch.cdist(known, known).add(torch.eye(50)).min() > 0.1


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"hidden_dim=10 must be a multiple of twice model.heads=4"):
        TransformerDecoder(WORDS, FEATURE, hidden_dim=10, heads=4)
    with pytest.raises(UserError, match=r"hidden_dim=10 does not split into heads=4"):
        AttentionDecoder(WORDS, FEATURE, hidden_dim=10, heads=4)
