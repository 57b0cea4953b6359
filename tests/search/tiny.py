"""Models small enough to try every sentence, and what each sentence's probability is."""

import itertools

import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.models.lstm import LSTMDecoder

WORDS = 7  # four specials and three words


def decoder(seed=0):
    torch.manual_seed(seed)
    made = LSTMDecoder(WORDS, 5, embed_dim=6, hidden_dim=8).eval().requires_grad_(False)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.8)
    return made


def features(batch=4):
    torch.manual_seed(2)
    return torch.randn(batch, 5)


def every_sentence(most):
    for length in range(1, most + 1):
        for words in itertools.product(range(4, WORDS), repeat=length):
            yield (*words, EOS)


def log_probability(model, row, sentence):
    """Of one sentence, word by word, with the words that search never emits left out."""
    total, state, last = 0.0, model.begin(row[None]), BOS
    for time, word in enumerate(sentence):
        logits, state = model.step(torch.tensor([last]), state)
        logits[:, [PAD, BOS, UNK, EOS] if time == 0 else [PAD, BOS, UNK]] = -torch.inf
        total += float(logits.log_softmax(-1)[0, word])
        last = word
    return total


def sentence(tokens):
    """Return a row of tokens up to `<eos>`, checked: words, one `<eos>`, then `<pad>`."""
    row = tokens.tolist()
    end = row.index(EOS)
    assert end >= 1
    assert all(word > UNK for word in row[:end])
    assert all(word == PAD for word in row[end + 1 :])
    return tuple(row[: end + 1])
