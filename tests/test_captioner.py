"""A captioner's hypotheses and attention for one image; tiny models with random weights."""

from functools import partial

import pytest
import torch
from PIL import Image
from stores import TinyStore
from torch import nn

from captioning import UserError
from captioning.captioner import Captioner, confidence_path, load_confidence
from captioning.data.records import Record
from captioning.data.vocabulary import BOS, SPECIALS, UNK, Vocabulary
from captioning.features.encoder import Encoder
from captioning.metrics.confidence import Confidence
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.old_names import decoder_sha256
from captioning.models.updown import UpDownDecoder
from captioning.search.beam import beam_search
from captioning.search.sample import sample

VOCABULARY = Vocabulary([*SPECIALS, "a", "red", "dog"])


@pytest.fixture(scope="module")
def grid():
    """An encoder of 3 x 3 regions."""
    return Encoder("resnet18", weights=None, features="grid", image_size=96)


@pytest.fixture(params=[AttentionDecoder, UpDownDecoder])
def attentive(grid, request):
    torch.manual_seed(0)
    decoder = request.param(7, grid.feature_shape[-1], embed_dim=8, hidden_dim=6)
    return Captioner(grid, decoder, VOCABULARY)


@pytest.fixture
def image():
    return Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 20).convert("RGB")


def test_the_first_alternative_is_the_caption_and_the_best(attentive, image):
    alternatives = attentive.alternatives(image)
    scores = [score for _, score in alternatives]
    assert alternatives[0][0] == attentive(image)
    assert len(alternatives) == 5
    assert scores == sorted(scores, reverse=True)


def test_no_alternative_comes_twice(attentive, image):
    attentive.search = partial(sample, samples=50, max_length=2)
    texts = [text for text, _ in attentive.alternatives(image)]
    assert 1 < len(texts) == len(set(texts)) <= 3 + 3 * 3


def test_alternatives_leave_out_what_only_fills_the_beam(attentive, image):
    attentive.search = partial(beam_search, width=5, max_length=1)
    assert {text for text, _ in attentive.alternatives(image)} == {"a", "red", "dog"}


def test_features_may_be_given_in_place_of_their_image(attentive, image):
    features = attentive.features(image)
    assert attentive.alternatives(features) == attentive.alternatives(image)
    both = (attentive.attention(given, "a dog") for given in (features, image))
    assert all(torch.equal(first[1], second[1]) for first, second in zip(*both, strict=True))


@pytest.mark.parametrize(
    ("caption", "words", "tokens"),
    [
        ("A red dog .", ["a", "red", "dog"], [4, 5, 6]),
        ("a zebra", ["a", "zebra"], [4, UNK]),
        ("", [], []),
    ],
)
@torch.inference_mode()
def test_attention_of_a_word_is_that_after_the_words_before_it(
    attentive, image, caption, words, tokens
):
    named, weights = zip(*attentive.attention(image, caption), strict=True)
    assert named == (*words, "<eos>")
    assert {shares.shape for shares in weights} == {(3, 3)}
    torch.testing.assert_close(torch.stack(weights).sum((1, 2)), torch.ones(len(words) + 1))
    features = attentive.encoder(attentive.encoder.preprocess(image)[None])
    expected = attentive.decoder.attention(features, torch.tensor([[BOS, *tokens]]))
    torch.testing.assert_close(torch.stack(weights).flatten(1), expected[0])


class DifferenceAttention(nn.Module):
    """Attends to where an image differs from an empty one."""

    def __init__(self, empty):
        super().__init__()
        self.empty = nn.Parameter(empty.clone())

    def attention(self, features, tokens):
        distances = (features - self.empty).norm(dim=-1)
        return (distances / distances.sum())[:, None].expand(-1, tokens.shape[1], -1)


@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("column", [0, 2])
def test_attention_is_where_it_is_on_the_image(grid, row, column):
    empty = Image.new("RGB", (150, 96))
    decoder = DifferenceAttention(grid(grid.preprocess(empty)[None]))
    spotted = empty.copy()
    spotted.paste("white", (50 * column, 32 * row, 50 * column + 50, 32 * row + 32))
    [(_, weights)] = Captioner(grid, decoder, VOCABULARY).attention(spotted, "")
    # A region's receptive field is large, so its neighbours differ too: the sides do not.
    assert weights[row].sum() > weights[2 - row].sum()
    assert weights[:, column].sum() > weights[:, 2 - column].sum()


def test_a_model_without_attention_is_named(encoder, image):
    decoder = LSTMDecoder(7, encoder.feature_shape[-1], embed_dim=8, hidden_dim=6)
    with pytest.raises(UserError, match=r"LSTMDecoder has no attention weights.*model=attention"):
        Captioner(encoder, decoder, VOCABULARY).attention(image, "a dog")


@pytest.fixture
def calibrated(grid):
    """A captioner whose confidence was fitted to made-up captions of made-up images."""
    torch.manual_seed(0)
    captioner = Captioner(grid, LSTMDecoder(7, grid.feature_shape[-1]), VOCABULARY)
    features = torch.rand(40, *grid.feature_shape)
    records = [Record(str(at), "", ("a dog", "a red dog"), "train") for at in range(40)]
    confidence = Confidence.fit(records, TinyStore(features), decoder_sha256(captioner.decoder))
    captions = ["a dog", "a red", "red", "dog"] * 10
    confidence.calibrate(-torch.rand(40), features, captions, torch.rand(40))
    captioner.confidence_model = confidence
    return captioner


def test_a_batch_has_the_confidence_of_each_caption(calibrated, image):
    batch = torch.stack([calibrated.encoder.preprocess(each) for each in (image, image.rotate(90))])
    scored = calibrated.scored_captions_of(batch)
    assert [caption for caption, _ in scored] == calibrated.captions_of(batch)
    for picture, (caption, scores) in zip((image, image.rotate(90)), scored, strict=True):
        assert list(scores) == ["confidence"]
        alone = calibrated.confidence(picture, ["a", caption])[1]
        assert scores["confidence"] == pytest.approx(alone, abs=1e-5)
        assert 0 < alone < 1


def test_captions_are_a_list_for_one_image(calibrated, image):
    assert calibrated.confidence(image, []) == []
    with pytest.raises(UserError, match=r"captions are a list of texts; type \['a dog'\]"):
        calibrated.confidence(image, "a dog")
    two = torch.cat([calibrated.features(image)] * 2)
    with pytest.raises(UserError, match="the features of 2 images"):
        calibrated.confidence(two, ["a dog", "a cat"])


def test_without_a_confidence_the_error_says_how_to_fit_it(attentive, image):
    with pytest.raises(UserError, match=r"captioning\.evaluate PATH split=dev confidence=true"):
        attentive.confidence(image, ["a dog"])
    with pytest.raises(UserError, match="call fit_image_fit"):
        attentive.image_fit(image, ["a dog"])
    (scored,) = attentive.scored_captions_of(attentive.encoder.preprocess(image)[None])
    assert scored == (attentive(image), {})


def test_a_confidence_lies_beside_its_checkpoint_or_in_its_folder(tmp_path):
    beside = tmp_path / "best.confidence.safetensors"
    assert confidence_path(tmp_path / "best.ckpt") == beside
    assert confidence_path(tmp_path) == tmp_path / "confidence.safetensors"
    assert confidence_path("default").is_file()


def test_the_confidence_of_another_decoder_is_not_used(calibrated, tmp_path, caplog):
    path = tmp_path / "confidence.safetensors"
    calibrated.confidence_model.save(path)
    models = calibrated.encoder, calibrated.decoder
    assert load_confidence(path, *models).decoder == calibrated.confidence_model.decoder
    assert not caplog.text
    assert load_confidence(path, models[0], LSTMDecoder(7, 512)) is None
    assert "is of another checkpoint and is not used" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no file of safetensors", None])
def test_a_damaged_confidence_is_a_sentence(content, calibrated, tmp_path):
    path = tmp_path / "confidence.safetensors"
    if content is None:  # of an encoder with other features
        calibrated.confidence_model.tensors["feature_mean"] = torch.zeros(3)
        calibrated.confidence_model.save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"holds no confidence of this captioner .*; delete it"):
        load_confidence(path, calibrated.encoder, calibrated.decoder)
