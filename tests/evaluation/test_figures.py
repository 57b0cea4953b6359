"""What figures show; the notebooks' test draws them too."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from captioning.captioner import Captioner
from captioning.evaluation.figures import attention_figure, captioned_figure, captions_figure
from captioning.training.validation import Generated


def draw(figure):
    figure.canvas.draw()
    return figure.axes


def test_captions_are_under_their_images_with_scores_and_a_reference(records):
    rows = [Generated(record, "a red thing", {"cider": 0.5}) for record in records[:5]]
    axes = draw(captions_figure(rows))
    assert len(axes) == 5
    assert axes[0].get_xlabel() == "“a red thing”\nCIDEr-D 50.0\nhuman: A red square ."


def test_the_region_of_a_word_s_highest_attention_is_bright_and_none_is_black():
    weights = torch.zeros(2, 2)
    weights[0, 1] = 0.8
    image = Image.new("RGB", (40, 40), "white")
    axes = draw(attention_figure(image, [("dog", weights), ("<eos>", weights / 20)]))
    assert [axis.get_title() for axis in axes[1:]] == ["dog  80 %", "<eos>  4 %"]
    for axis in axes[1:]:  # of less attention, but as bright
        light = axis.images[0].get_array()
        assert light[5, 35].mean() > 0.95 and 0.4 < light[35, 5].mean() < 0.55


class FixedCaptioner(Captioner):
    """A captioner whose caption is known."""

    def __init__(self, has_attention):
        self.decoder = SimpleNamespace(attention=True) if has_attention else None

    def features(self, image):
        return torch.zeros(1, 4, 2)

    def alternatives(self, features):
        return [("a red dog", -1.0), ("a dog", -2.0)]

    def attention(self, features, caption):
        return [(word, torch.ones(2, 2) / 4) for word in [*caption.split(), "<eos>"]]


@pytest.mark.parametrize(("has_attention", "words"), [(True, ["a", "red", "dog"]), (False, [])])
def test_a_captioned_image_has_the_attention_of_each_word(has_attention, words):
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    figure, captions = captioned_figure(FixedCaptioner(has_attention), images)
    assert captions == ["a red dog"] * 2
    titles = [axis.get_title() for axis in draw(figure)]
    assert list(filter(None, titles)) == [f"{word}  25 %" for word in words] * 2
