"""What a captioner says of one picture, and where it looks; tiny models with random weights."""

from functools import partial

import pytest
import torch
from PIL import Image
from torch import nn

from captioning import UserError
from captioning.captioner import Captioner
from captioning.data.vocabulary import BOS, SPECIALS, UNK, Vocabulary
from captioning.features.encoder import Encoder
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.updown import UpDownDecoder
from captioning.search.beam import beam_search
from captioning.search.sample import sample

VOCABULARY = Vocabulary([*SPECIALS, "a", "red", "dog"])


@pytest.fixture(scope="module")
def grid():
    """An encoder of 3 x 3 regions."""
    return Encoder("resnet18", weights=None, features="grid", image_size=96)


@pytest.fixture(scope="module", params=[AttentionDecoder, UpDownDecoder])
def attentive(grid, request):
    torch.manual_seed(0)
    decoder = request.param(7, grid.feature_shape[-1], embed_dim=8, hidden_dim=6)
    return Captioner(grid, decoder, VOCABULARY)


@pytest.fixture
def picture():
    return Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 20).convert("RGB")


def test_the_first_alternative_is_the_caption_and_the_best(attentive, picture):
    found = attentive.alternatives(picture)
    scores = [score for _, score in found]
    assert found[0][0] == attentive(picture)
    assert len(found) == 5
    assert scores == sorted(scores, reverse=True)


def test_alternatives_say_nothing_twice(attentive, picture):
    drawing = Captioner(attentive.encoder, attentive.decoder, VOCABULARY)
    drawing.search = partial(sample, samples=50, max_length=2)
    texts = [text for text, _ in drawing.alternatives(picture)]
    assert 1 < len(texts) == len(set(texts)) <= 3 + 3 * 3


def test_alternatives_leave_out_what_only_fills_the_beam(attentive, picture):
    searching = Captioner(attentive.encoder, attentive.decoder, VOCABULARY)
    searching.search = partial(beam_search, width=5, max_length=1)
    assert {text for text, _ in searching.alternatives(picture)} == {"a", "red", "dog"}


def test_a_picture_that_is_encoded_is_answered_as_the_picture(attentive, picture):
    features = attentive.features(picture)
    assert attentive.alternatives(features) == attentive.alternatives(picture)
    again = zip(
        attentive.attention(features, "a dog"), attentive.attention(picture, "a dog"), strict=True
    )
    assert all(torch.equal(one[1], other[1]) for one, other in again)


def test_every_word_and_the_end_have_their_share_of_each_region(attentive, picture):
    looked = attentive.attention(picture, "A red dog .")
    assert [word for word, _ in looked] == ["a", "red", "dog", "<eos>"]
    for _, weights in looked:
        assert weights.shape == (3, 3)
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


@torch.inference_mode()
def test_a_word_is_chosen_by_what_was_said_before_it(attentive, picture):
    images = attentive.encoder.preprocess(picture)[None]
    expected = attentive.decoder.attention(attentive.encoder(images), torch.tensor([[BOS, 5]]))
    (_, first), (_, end) = attentive.attention(picture, "red")
    torch.testing.assert_close(torch.stack([first, end]).flatten(1), expected[0])


@torch.inference_mode()
def test_a_word_that_the_model_does_not_know_keeps_its_name(attentive, picture):
    looked = attentive.attention(picture, "a zebra")
    assert [word for word, _ in looked] == ["a", "zebra", "<eos>"]
    images = attentive.encoder.preprocess(picture)[None]
    tokens = torch.tensor([[BOS, 4, UNK]])
    expected = attentive.decoder.attention(attentive.encoder(images), tokens)[0]
    torch.testing.assert_close(torch.stack([one for _, one in looked]).flatten(1), expected)


class Difference(nn.Module):
    """Looks where a picture differs from an empty one."""

    def __init__(self, empty):
        super().__init__()
        self.empty = nn.Parameter(empty.clone())

    def attention(self, features, tokens):
        differs = (features - self.empty).norm(dim=-1)
        return (differs / differs.sum())[:, None].expand(-1, tokens.shape[1], -1)


@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("column", [0, 2])
def test_attention_is_where_it_is_on_the_picture(grid, row, column):
    empty = Image.new("RGB", (150, 96))
    looks = Difference(grid(grid.preprocess(empty)[None]))
    spotted = empty.copy()
    spotted.paste("white", (50 * column, 32 * row, 50 * column + 50, 32 * row + 32))
    [(_, weights)] = Captioner(grid, looks, VOCABULARY).attention(spotted, "")
    # A region sees far around itself, so its neighbours differ too: the sides do not.
    assert weights[row].sum() > weights[2 - row].sum()
    assert weights[:, column].sum() > weights[:, 2 - column].sum()


def test_a_model_that_does_not_look_says_so(encoder, picture):
    decoder = LSTMDecoder(7, encoder.feature_shape[-1], embed_dim=8, hidden_dim=6)
    with pytest.raises(UserError, match=r"LSTMDecoder does not show where.*model=attention"):
        Captioner(encoder, decoder, VOCABULARY).attention(picture, "a dog")
