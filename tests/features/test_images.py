import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet50_Weights

from captioning.data.records import UserError
from captioning.features import images
from captioning.features.images import Preprocess, load_image, read_ahead
from captioning.features.weights import LITES, preprocess_of

LITE0 = LITES["efficientnet_lite0"].preprocess


def stripes(size=(48, 32), left="red", right="blue"):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def test_the_orientation_in_the_exif_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: left is up
    stripes().save(tmp_path / "turned.png", exif=exif)
    image = load_image(tmp_path / "turned.png")
    assert image.size == (32, 48)
    assert image.getpixel((16, 4)) == (255, 0, 0)
    assert image.getpixel((16, 44)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_pixels_become_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        image.convert("P").save(tmp_path / "clear.png", transparency=0)
    else:
        image.convert(mode).save(
            tmp_path / "clear.tiff" if mode == "PA" else tmp_path / "clear.png"
        )
    file = next(tmp_path.iterdir())
    assert load_image(file).getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(
    "mode, colour, suffix",
    [("1", 0, "png"), ("L", 0, "png"), ("P", 0, "gif"), ("CMYK", (0, 0, 0, 255), "jpg")],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.new(mode, (8, 8), colour).save(path)
    image = load_image(path)
    assert image.mode == "RGB"
    assert max(image.getpixel((4, 4))) < 8


def test_transparent_webp_becomes_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.webp", lossless=True)
    assert load_image(tmp_path / "clear.webp").getpixel((2, 2)) == (255, 255, 255)


def test_cmyk_keeps_its_colours(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    red, green, blue = load_image(tmp_path / "print.jpg").getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


def save_heic(path, **options):
    """Write a HEIC; Pillow learns to from the plugin's other half, in this process only."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(stripes((96, 64))).save(path, quality=95, **options)


@pytest.mark.parametrize("name", ["phone.heic", "phone.jpg"])
def test_heic_is_read_whatever_it_is_called(tmp_path, name):
    save_heic(tmp_path / "phone.heic")
    (tmp_path / "phone.heic").rename(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.size == (96, 64)
    assert image.getpixel((10, 32))[0] > 200
    assert image.getpixel((86, 32))[2] > 200


def test_heic_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_heic(tmp_path / "phone.heic", exif=exif.tobytes())
    image = load_image(tmp_path / "phone.heic")
    assert image.size == (64, 96)
    assert image.getpixel((32, 10))[0] > 200


def test_heic_without_its_package_names_the_extra(tmp_path, monkeypatch):
    save_heic(tmp_path / "phone.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images._reads_heic.cache_clear()
    with pytest.raises(UserError, match=r"it is HEIC, .*pip install 'captioning\[heic\]'"):
        load_image(tmp_path / "phone.heic")
    images._reads_heic.cache_clear()


def test_an_address_is_not_fetched():
    with pytest.raises(UserError, match="nothing is fetched from the network"):
        load_image("https://example.org/a.jpg")


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png").getpixel((1, 1)) == (127, 127, 127)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(tmp_path):
    stripes((2600, 1300)).save(tmp_path / "photo.jpg")
    assert load_image(tmp_path / "photo.jpg").size == (1300, 650)


def test_a_reduced_scale_hardly_changes_the_input(tmp_path):
    ramp = np.linspace(0, 255, 1300 * 1400 * 3).reshape(1300, 1400, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photo.jpg", quality=95)
    reduced = LITE0(load_image(tmp_path / "photo.jpg"))
    assert (reduced - LITE0(Image.fromarray(ramp))).abs().mean() < 0.01


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"not a picture at all", b"\x89PNG\r\n\x1a\n" + bytes(40)],
    ids=["empty", "header", "text", "garbage"],
)
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read as a picture"):
        load_image(tmp_path / "broken.jpg")


def test_a_truncated_picture_is_named(tmp_path):
    stripes((300, 300)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.jpg .*truncated"):
        load_image(tmp_path / "half.jpg")


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg .*No such file"):
        load_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("limit", [500, 1000])  # where Pillow raises, and where it only warns
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    stripes().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"bomb\.png cannot be read as a picture"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "weights", [ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B0_Weights.DEFAULT]
)
def test_with_a_crop_it_is_torchvisions_own_preprocessing(weights):
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (261, 347, 3), np.uint8))
    torch.testing.assert_close(preprocess_of(weights)(image), weights.transforms()(image))


def test_without_a_crop_the_whole_picture_is_seen():
    preprocess = Preprocess(16, None, [0.0] * 3, [1.0] * 3, "bilinear")
    image = preprocess(stripes((200, 50)))
    assert image.shape == (3, 16, 16)
    assert image[:, 8, 0].tolist() == [1, 0, 0]
    assert image[:, 8, -1].tolist() == [0, 0, 1]


def test_a_picture_that_is_passed_in_stays_as_it_was():
    image = stripes().convert("RGBA")
    before = image.copy()
    LITE0(image)
    assert image == before


def test_the_lite_release_reads_pixels_minus_127_over_128():
    image = Image.new("RGB", (8, 8), (127, 255, 0))
    values = LITE0(image)[:, 3, 3]
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0, -127 / 128]))


def test_its_values_survive_json():
    values = asdict(LITE0)
    assert json.loads(json.dumps(values)) == values


def test_pictures_are_read_ahead_in_order_with_reasons_for_gaps(tmp_path):
    colours = ["red", "lime", "blue", "white", "black"]
    for colour in colours:
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "blue.png").write_bytes(b"no picture")
    preprocess = Preprocess(4, None, [0.0] * 3, [1.0] * 3, "bilinear")
    paths = [str(tmp_path / f"{colour}.png") for colour in colours]
    batches = list(read_ahead(paths, preprocess, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert "blue.png cannot be read" in batches[1][0]
    colours = [
        one[:, 0, 0].tolist() for batch in batches for one in batch if one is not batches[1][0]
    ]
    assert colours == [[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_no_picture_is_no_batch():
    assert list(read_ahead([], LITE0, 2)) == []
