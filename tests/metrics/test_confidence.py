"""Confidence: its two inputs, its calibration, its file; a tiny decoder, made-up images."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stores import TinyStore

from captioning.data.records import Record
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.metrics.confidence import Confidence, caption_log_probs, reliability
from captioning.models.lstm import LSTMDecoder

VOCABULARY = Vocabulary([*SPECIALS, "cat", "dog", "runs"])
TEXTS = [("a dog runs", "the dog runs"), ("a cat sits", "the cat sits")]
RECORDS = [Record(str(at), "", TEXTS[at % 2], "train") for at in range(40)]


@pytest.fixture(scope="module")
def features():
    torch.manual_seed(0)
    return torch.eye(2).repeat(20, 2) * 3 + torch.rand(40, 4)


@pytest.fixture
def confidence(features):
    """Fitted to 2,000 captions, whose closeness is a function of their log-probability."""
    made = Confidence.fit(RECORDS, TinyStore(features), "0" * 64)
    torch.manual_seed(1)
    log_probs = -3 * torch.rand(2000)
    captions = ["a dog runs", "a cat sits", "a cat", "the dog"] * 500
    closeness = (2 + 2 * log_probs).sigmoid()
    made.calibrate(log_probs, features.repeat(50, 1), captions, closeness)
    return made


def test_log_probabilities_are_the_mean_over_words_and_the_end():
    torch.manual_seed(0)
    decoder = LSTMDecoder(7, 5, embed_dim=6, hidden_dim=8).eval().requires_grad_(False)
    images = torch.randn(3, 5)
    captions = ["a dog runs", "", "cat dog cat dog"]  # "a" is <unk>
    found = caption_log_probs(decoder, VOCABULARY, images, captions)
    for image, caption, value in zip(images, captions, found.tolist(), strict=True):
        state, total = decoder.begin(image[None]), 0.0
        tokens = VOCABULARY.encode(caption)
        for token, following in pairwise(tokens):
            logits, state = decoder.step(torch.tensor([token]), state)
            total += float(logits[0].log_softmax(-1)[following])
        assert value == pytest.approx(total / (len(tokens) - 1), abs=1e-5)


def test_it_is_the_probability_that_it_was_fitted_to(confidence, features):
    log_probs = torch.linspace(-3, 0, 40)
    values = confidence(log_probs, features, ["a dog runs"] * 40)
    expected = (2 + 2 * log_probs).sigmoid()
    torch.testing.assert_close(values, expected, atol=0.02, rtol=0)


def test_a_caption_of_words_that_the_image_lets_expect_is_surer(features):
    made = Confidence.fit(RECORDS, TinyStore(features), "0" * 64)
    captions = ["a dog runs", "a cat sits", "a cat sits", "a dog runs"] * 10
    fits = torch.tensor([1.0, 1, 0, 0] * 10)
    made.calibrate(torch.full((40,), -1.0), features, captions, fits)
    values = made(torch.full((4,), -1.0), features[:4], captions[:4])
    assert values[:2].min() > 0.9 and values[2:].max() < 0.1


def test_regions_are_averaged(confidence):
    grid = torch.rand(2, 9, 4)
    arguments = torch.tensor([-1.0, -2]), ["a dog", "a cat"]
    of_grid = confidence(arguments[0], grid, arguments[1])
    torch.testing.assert_close(of_grid, confidence(arguments[0], grid.mean(1), arguments[1]))


def test_a_file_has_it_to_the_last_digit(confidence, features, tmp_path):
    confidence.save(tmp_path / "a.safetensors")
    again = Confidence.load(tmp_path / "a.safetensors")
    captions = ["a dog runs", "a cat", "zebra", ""] * 10
    log_probs = -torch.rand(40)
    expected = confidence(log_probs, features, captions)
    assert torch.equal(again(log_probs, features, captions), expected)
    assert again.decoder == confidence.decoder
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("name", ["bias", "word_frequency", "slopes", "intercept", "feature_scale"])
def test_a_file_of_other_sizes_is_refused(name, confidence, tmp_path):
    confidence.tensors[name] = torch.ones(7)
    confidence.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not of one size"):
        Confidence.load(tmp_path / "a.safetensors")


def test_a_file_with_a_number_that_is_none_is_refused(confidence, tmp_path):
    confidence.tensors["intercept"] = torch.tensor(torch.nan)
    confidence.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not all of its numbers are finite"):
        Confidence.load(tmp_path / "a.safetensors")


def test_another_calibration_has_another_hash(confidence):
    before = confidence.sha256
    confidence.tensors["intercept"] = confidence.tensors["intercept"] + 1
    assert confidence.sha256 != before


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises((TypeError, KeyError)):
        Confidence.load(tmp_path / "a.safetensors")


def test_calibration_error_is_how_far_bins_are_from_their_confidence():
    confidences = np.array([0.1, 0.1, 0.5, 0.5])
    error, bins = reliability(confidences, np.array([0.0, 0.4, 0.5, 0.7]), bins=2)
    assert error == pytest.approx((0.1 + 0.1) / 2)
    assert bins == [pytest.approx((0.1, 0.2)), pytest.approx((0.5, 0.6))]
