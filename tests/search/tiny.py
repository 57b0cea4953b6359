"""Models small enough to try every caption, and the probability of each."""

import itertools

import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.models.lstm import LSTMDecoder

WORDS = 7  # four specials and three words


def decoder(seed=0):
    torch.manual_seed(seed)
    model = LSTMDecoder(WORDS, 5, embed_dim=6, hidden_dim=8).eval().requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.8)
    return model


def features(batch=4):
    torch.manual_seed(2)
    return torch.randn(batch, 5)


def every_caption(max_length):
    for length in range(1, max_length + 1):
        for words in itertools.product(range(4, WORDS), repeat=length):
            yield (*words, EOS)


def next_log_probs(model, state, last, is_first):
    """Return the log-probabilities of the next word and the new state, as search defines them."""
    logits, state = model.step(torch.tensor([last]), state)
    logits[:, [PAD, BOS, UNK, EOS] if is_first else [PAD, BOS, UNK]] = -torch.inf
    return logits.log_softmax(-1)[0], state


def log_probability(model, features, caption):
    total, state = 0.0, model.begin(features[None])
    for last, word in itertools.pairwise([BOS, *caption]):
        log_probs, state = next_log_probs(model, state, last, last == BOS)
        total += float(log_probs[word])
    return total


def read_caption(tokens):
    """Return a row of tokens up to `<eos>`, checked: words, one `<eos>`, then `<pad>`."""
    row = tokens.tolist()
    end = row.index(EOS)
    assert end >= 1
    assert all(word > UNK for word in row[:end])
    assert all(word == PAD for word in row[end + 1 :])
    return tuple(row[: end + 1])


def assert_equal_alone(search, rows):
    """Check that a batch gives each image what the image gives alone."""
    together = search(rows)
    for at, row in enumerate(rows):
        alone = search(row[None])
        time = alone.tokens.shape[-1]
        assert torch.equal(together.tokens[at, :, :time], alone.tokens[0])
        assert (together.tokens[at, :, time:] == PAD).all()
        torch.testing.assert_close(together.scores[at], alone.scores[0])
