"""The baselines of the benchmarks, as a careful user without this project would write them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from captioning.data.vocabulary import PAD


def features_of(store):
    """Return the store's file as anybody would open it."""
    return np.load(store.folder / "features-00000.npy", mmap_mode="r")


class ItemByItem(Dataset):
    """A caption and its image's features an item."""

    def __init__(self, store, rows, captions):
        self.features, self.rows, self.captions = features_of(store), rows, captions

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        features = torch.from_numpy(self.features[self.rows[at]].astype("float32"))
        return features, torch.tensor(self.captions[at])


def loader(store, rows, captions, batch_size=128):
    """Random order, padded to the batch's longest."""

    def collate(items):
        features, tokens = zip(*items, strict=True)
        return torch.stack(features), pad_sequence(tokens, batch_first=True, padding_value=PAD)

    data = ItemByItem(store, rows, captions)
    return DataLoader(data, batch_size, shuffle=True, collate_fn=collate)


def step(decoder, optimizer, features, tokens):
    """One step of teacher forcing, with logits at every place."""
    logits = decoder(features, tokens[:, :-1])
    targets = tokens[:, 1:].flatten()
    loss = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=PAD, label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class ShowAndTell(nn.Module):
    """Vinyals et al. 2015 of torch's own layers."""

    def __init__(self, vocabulary_size, feature_dim, hidden_dim=256):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_dim)
        self.image = nn.Sequential(
            nn.BatchNorm1d(feature_dim), nn.Dropout(0.4), nn.Linear(feature_dim, 2 * hidden_dim)
        )
        self.lstm = nn.LSTM(hidden_dim, hidden_dim, batch_first=True)
        self.dropout = nn.Dropout(0.4)
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def forward(self, features, tokens):
        hidden, cell = (part.contiguous()[None] for part in self.image(features).chunk(2, -1))
        words = self.dropout(self.embedding(tokens))
        return self.output(self.dropout(self.lstm(words, (hidden.tanh(), cell))[0]))


class SoftAttention(nn.Module):
    """Xu et al. 2015 as tutorials write it: additive attention, one LSTM cell per word."""

    def __init__(self, vocabulary_size, feature_dim, hidden_dim=256):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_dim)
        self.of_image = nn.Linear(feature_dim, hidden_dim)
        self.of_state = nn.Linear(hidden_dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1)
        self.gate = nn.Linear(hidden_dim, feature_dim)
        self.first = nn.Linear(feature_dim, 2 * hidden_dim)
        self.cell = nn.LSTMCell(hidden_dim + feature_dim, hidden_dim)
        self.dropout = nn.Dropout(0.4)
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def forward(self, features, tokens):
        hidden, cell = self.first(features.mean(1)).chunk(2, -1)
        words, logits = self.embedding(tokens), []
        for time in range(tokens.shape[1]):
            asked = self.of_image(features) + self.of_state(hidden)[:, None]
            weights = self.score(asked.relu()).softmax(1)
            context = self.gate(hidden).sigmoid() * (weights * features).sum(1)
            hidden, cell = self.cell(torch.cat([words[:, time], context], -1), (hidden, cell))
            logits.append(self.output(self.dropout(hidden)))
        return torch.stack(logits, 1)


class KerasMerge(nn.Module):
    """The notebook's merge model: the LSTM reads a prefix, its last state meets the image."""

    def __init__(self, vocabulary_size, feature_dim, hidden_dim=256):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_dim, padding_idx=PAD)
        self.image = nn.Sequential(nn.Dropout(0.5), nn.Linear(feature_dim, hidden_dim), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.lstm = nn.LSTM(hidden_dim, hidden_dim, batch_first=True)
        self.merged = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU())
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def forward(self, features, prefixes):
        _, (hidden, _) = self.lstm(self.dropout(self.embedding(prefixes)))
        return self.output(self.merged(self.image(features) + hidden[0]))


def prefix_steps(
    model, optimizer, store, rows, captions, vocabulary_size, longest, captions_a_step
):
    """Train on every prefix of the captions, padded in front to the longest, one-hot targets."""
    stored = features_of(store)
    for start in range(0, len(captions), captions_a_step):
        features, prefixes, targets = [], [], []
        for row, tokens in list(zip(rows, captions, strict=False))[start : start + captions_a_step]:
            image = torch.from_numpy(stored[row].astype("float32"))
            for end in range(1, len(tokens)):
                features.append(image)
                prefixes.append([PAD] * (longest - end) + tokens[:end])
                targets.append(tokens[end])
        one_hot = F.one_hot(torch.tensor(targets), vocabulary_size).float()
        logits = model(torch.stack(features), torch.tensor(prefixes))
        loss = -(one_hot * logits.log_softmax(-1)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
