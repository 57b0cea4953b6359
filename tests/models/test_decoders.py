"""What every decoder promises (the contract in decoder.py), an ensemble of them included."""

import math
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.models.attention import AttentionDecoder
from captioning.models.ensemble import Ensemble
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder, sinusoidal_positions
from captioning.models.updown import UpDownDecoder
from captioning.search.beam import beam_search
from captioning.search.sample import sample

WORDS, FEATURE, BATCH, TIME = 11, 6, 3, 5


lstm = partial(LSTMDecoder, WORDS, FEATURE, embed_dim=8, hidden_dim=7)
torch.manual_seed(0)
DECODERS = {
    "lstm": lstm(),
    "tied": lstm(num_layers=2, tied=True),
    "pre": lstm(num_layers=2, tied=True, inject="pre"),
    "par": lstm(num_layers=2, tied=True, inject="par"),
    "merge": MergeDecoder(WORDS, FEATURE, hidden_dim=8),
    "attention": AttentionDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=6, heads=2),
    "updown": UpDownDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=6),
    "transformer": TransformerDecoder(WORDS, FEATURE, hidden_dim=8, heads=2),
}
# Members with states of two and of three parts, and one whose state grows.
ENSEMBLE = Ensemble([lstm(), DECODERS["transformer"], DECODERS["merge"], lstm()])
REGIONAL = ["attention", "updown", "transformer"]


def over(*names):
    """Parametrize by decoders in eval mode."""
    return pytest.mark.parametrize("decoder", names or DECODERS, indirect=True)


@pytest.fixture
def decoder(request):
    return (DECODERS | {"ensemble": ENSEMBLE})[request.param].eval()


@pytest.fixture
def inputs(decoder):
    """Features and tokens."""
    torch.manual_seed(1)
    regions = (4,) if any(decoder is DECODERS[name] for name in REGIONAL) else ()
    return torch.randn(BATCH, *regions, FEATURE), torch.randint(4, WORDS, (BATCH, TIME))


@over(*DECODERS, "ensemble")
def test_forward_equals_repeated_step(decoder, inputs):
    features, tokens = inputs
    state, steps = decoder.begin(features), []
    for time in range(TIME):
        logits, state = decoder.step(tokens[:, time], state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), decoder(features, tokens))


@over()
def test_decoding_in_parts_gives_the_same_and_changes_no_state_in_place(decoder, inputs):
    features, tokens = inputs
    state = decoder.begin(features)
    before = [part.clone() for part in state]
    first, middle = decoder.decode(tokens[:, :2], state)
    assert all(map(torch.equal, before, state))
    second, _ = decoder.decode(tokens[:, 2:], middle)
    logits = decoder.output(torch.cat([first, second], 1))
    torch.testing.assert_close(logits, decoder(features, tokens))


@over()
def test_a_word_changes_no_logits_before_it(decoder, inputs):
    features, tokens = inputs
    changed = tokens.clone()
    changed[:, 3] = BOS
    before, after = decoder(features, tokens), decoder(features, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@over()
def test_an_image_and_its_words_change_their_own_logits_only(decoder, inputs):
    features, tokens = inputs
    logits = decoder(features, tokens)
    assert not torch.allclose(logits, decoder(features.flip(0), tokens))
    torch.testing.assert_close(decoder(features[:1], tokens[:1]), logits[:1])


@over(*(name for name in DECODERS if name not in REGIONAL))
def test_grid_features_are_read_as_their_mean(decoder, inputs):
    features, tokens = inputs
    grid = torch.stack([features - 1, features + 1], 1)
    torch.testing.assert_close(decoder(grid, tokens), decoder(features, tokens))


@over(*REGIONAL)
def test_regions_are_a_set_and_not_their_mean(decoder, inputs):
    features, tokens = inputs
    logits = decoder(features, tokens)
    torch.testing.assert_close(decoder(features[:, [2, 0, 3, 1]], tokens), logits)
    mean = features.mean(1, keepdim=True).expand_as(features)
    assert not torch.allclose(decoder(mean, tokens), logits)


@over()
def test_every_parameter_gets_a_gradient(decoder, inputs):
    decoder.train()
    decoder.zero_grad()
    decoder(*inputs).logsumexp(-1).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in decoder.parameters())


@over("lstm", "pre", "par", "transformer")
def test_decoders_learn_from_the_captions_of_a_single_pooled_image(decoder):
    state = decoder.repeat(decoder.train().begin(torch.randn(1, FEATURE)), 3)
    decoder.zero_grad()
    tokens = torch.randint(4, WORDS, (3, TIME))
    decoder.output(decoder.decode(tokens, state)[0]).logsumexp(-1).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in decoder.parameters())


@over()
def test_dropout_is_for_training(decoder, inputs):
    assert torch.equal(decoder(*inputs), decoder(*inputs))
    decoder.train()
    assert not torch.equal(decoder(*inputs), decoder(*inputs))


@over()
def test_low_precision_gives_about_the_same_logits(decoder, inputs):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = decoder(*inputs)
    torch.testing.assert_close(low.float(), decoder(*inputs), atol=0.05, rtol=0.05)


@over(*DECODERS, "ensemble")
@pytest.mark.parametrize(
    "search", [partial(beam_search, length_penalty=0.0), sample], ids=["beam", "sample"]
)
@torch.inference_mode()
def test_the_scores_of_hypotheses_are_their_log_probabilities(decoder, inputs, search):
    """However a search reordered the rows of the state, and however it grew."""
    features, _ = inputs
    tokens, scores = search(decoder, features, 4, max_length=TIME)
    rows, tokens = features.repeat_interleave(4, 0), tokens.flatten(0, 1)
    previous = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    logits = decoder(rows, previous)
    logits[..., [PAD, BOS, UNK]] = -torch.inf
    logits[:, 0, EOS] = -torch.inf
    log_probs = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    expected = log_probs.masked_fill(tokens == PAD, 0.0).sum(1)
    torch.testing.assert_close(scores.flatten(), expected)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.size = max([self.size, *sizes])
        return result


@over(*REGIONAL)
@pytest.mark.parametrize("search", [beam_search, sample])
def test_no_search_copies_the_regions_for_each_hypothesis(decoder, search):
    images, width, regions = 2, 10, 60
    features = torch.randn(images, regions, FEATURE)
    with LargestTensor() as largest:
        search(decoder, features, width, max_length=TIME)
    hidden_dim = decoder.region_proj.linear.out_features
    assert 0 < largest.size < images * width * regions * hidden_dim


@over("pre")
def test_an_image_as_first_word_is_decoded_from_a_zero_state(decoder, inputs):
    word = decoder.image_proj(inputs[0])[:, None]
    zero = torch.zeros(decoder.lstm.num_layers, BATCH, decoder.lstm.hidden_size)
    _, (hidden, cell) = decoder.lstm(word, (zero, zero))
    expected = hidden.transpose(0, 1), cell.transpose(0, 1)
    torch.testing.assert_close(decoder.begin(inputs[0]), expected)


@over("par")
def test_an_image_beside_every_word_stays_in_the_state(decoder, inputs):
    """It is not in the LSTM's initial state."""
    hidden, cell, image = decoder.begin(inputs[0])
    assert not hidden.any()
    assert not cell.any()
    _, state = decoder.decode(torch.full((BATCH, TIME), BOS), (hidden, cell, image))
    assert torch.equal(state[2], image)


@over("tied")
def test_tied_output_shares_the_embedding(decoder):
    assert decoder.output.weight is decoder.embedding.weight


@over("attention", "updown")
def test_attention_weights_are_of_the_regions_in_their_order(decoder, inputs):
    features, tokens = inputs
    weights, order = decoder.attention(features, tokens), [2, 0, 3, 1]
    assert weights.shape == (BATCH, TIME, 4)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, TIME))
    torch.testing.assert_close(decoder.attention(features[:, order], tokens), weights[:, :, order])


@over("attention", "updown")
def test_attention_without_regions_is_refused(decoder):
    with pytest.raises(UserError, match=r"encoder\.features=grid"):
        decoder.begin(torch.zeros(BATCH, FEATURE))


@over("transformer")
def test_a_transformer_reads_pooled_features_as_one_region(decoder, inputs):
    pooled, tokens = inputs[0][:, 0], inputs[1]
    torch.testing.assert_close(decoder(pooled, tokens), decoder(pooled[:, None], tokens))


@over("transformer")
def test_a_transformers_logits_depend_on_the_order_of_words(decoder, inputs):
    features, tokens = inputs
    before, after = decoder(features, tokens), decoder(features, tokens[:, [1, 0, 2, 3, 4]])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_positions_are_encoded_by_sines_and_cosines():
    """Each is a rotation of the one before it: sines' and cosines' squares sum to 1."""
    encodings = sinusoidal_positions(torch.arange(50), 8)
    torch.testing.assert_close(encodings.square().sum(1), torch.full((50,), 4.0))
    torch.testing.assert_close(encodings[7, [0, 4]], torch.tensor([math.sin(7), math.cos(7)]))
    assert torch.cdist(encodings, encodings).add(torch.eye(50)).min() > 0.1


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (LSTMDecoder, {"inject": "post"}, r"model\.inject=post: .* init, pre or par"),
        (TransformerDecoder, {"heads": 4}, "must be a multiple of twice model.heads=4"),
        (AttentionDecoder, {"heads": 4}, "hidden_dim=10 does not split into heads=4"),
    ],
)
def test_options_that_cannot_be_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model(WORDS, FEATURE, hidden_dim=10, **options)


@over("lstm")
@pytest.mark.parametrize("copies", [1, 2])
def test_an_ensemble_of_equal_members_is_as_one_of_them(decoder, inputs, copies):
    alone, together = (beam_search(m, inputs[0]) for m in (decoder, Ensemble([decoder] * copies)))
    assert torch.equal(alone.tokens, together.tokens)
    torch.testing.assert_close(alone.scores, together.scores)


@over("lstm")
def test_an_ensemble_averages_probabilities(decoder, inputs):
    members, tokens = [decoder, lstm().eval()], torch.full((BATCH,), BOS)
    ensemble = Ensemble(members)
    log_probs, _ = ensemble.step(tokens, ensemble.begin(inputs[0]))
    alone = [member.step(tokens, member.begin(inputs[0]))[0].softmax(-1) for member in members]
    torch.testing.assert_close(log_probs.exp(), (alone[0] + alone[1]) / 2)
