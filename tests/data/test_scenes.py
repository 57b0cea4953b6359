"""Drawn scenes: the images, their captions, and which captions are true."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning import UserError
from captioning.data import scenes
from captioning.data.scenes import KINDS, PALETTE, Scenes, place_objects
from captioning.data.sentences import SENTENCES, WORDS, caption_scene, draw_scene, parse_caption

SYNONYMS = [{"big", "large", "huge"}, {"small", "little", "tiny"}, {"middle", "center"}]
SYNONYMS += [{"above", "over"}, {"below", "under"}]
LEFT = {"kind": "relation", "colour": "red", "shape": "circle", "relation": "left"}
LEFT |= {"other_colour": "blue", "other_shape": "square"}
BIG = {"kind": "size", "colour": "red", "shape": "circle", "size": "big", "place": "middle"}
TOP = {"kind": "place", "colour": "red", "shape": "circle", "place": "top"}
TWO = {"kind": "count", "colour": "red", "shape": "circle", "count": "two"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Scenes:
    source = Scenes(str(tmp_path_factory.mktemp("data")), images=50)
    source.prepare()
    return source


def seeded(number: int) -> random.Random:
    return random.Random(f"test/{number}")


def drawn(number: int) -> list[tuple[dict[str, str], list[str]]]:
    """Scenes of every kind in turn, with their captions."""
    pairs = []
    for i in range(number):
        scene = draw_scene(KINDS[i % len(KINDS)], seeded(i))
        pairs.append((scene, caption_scene(scene, seeded(i))))
    return pairs


def test_captions_are_true_of_their_own_scene_and_false_of_every_other(source):
    for record in source.records():
        assert len(set(record.captions)) == 5
        assert all(source.is_true(record.image_id, caption) for caption in record.captions)
        for other in source.records():
            is_same = source.scenes[record.image_id] == source.scenes[other.image_id]
            assert source.is_true(record.image_id, other.captions[0]) == is_same


def test_another_word_anywhere_makes_a_caption_false():
    vocabulary = sorted({w for _, captions in drawn(100) for c in captions for w in c.split()})
    for scene, captions in drawn(10):
        words = captions[0].split()
        for i, word in enumerate(words):
            for other in vocabulary:
                if other != word and not any({word, other} <= same for same in SYNONYMS):
                    changed = " ".join([*words[:i], other, *words[i + 1 :]])
                    assert parse_caption(changed) != scene, changed


def test_a_word_less_or_twice_makes_a_caption_false():
    for scene, captions in drawn(100):
        for words in map(str.split, captions):
            for i, word in enumerate(words):
                shorter = " ".join(words[:i] + words[i + 1 :])
                assert parse_caption(shorter) != scene or word == "side", shorter
                assert parse_caption(" ".join([*words[:i], word, *words[i:]])) != scene


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (LEFT, "a red circle left of a blue square"),
        (LEFT, "a blue square to the right of a red circle"),
        (LEFT, "A picture of a red circle, to the left of a blue square."),
        (LEFT | {"relation": "above"}, "there is a blue square under a red circle"),
        (BIG, "a huge red circle"),
        (BIG, "in the middle there is a large red circle"),
        (TOP, "in the upper part there is a red circle"),
        (TWO, "there are two red circles on a pale background"),
    ],
)
def test_true(scene, caption):
    assert parse_caption(caption) == scene


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (LEFT, "a blue square left of a red circle"),
        (LEFT, "a red square left of a blue circle"),
        (LEFT, "a red circle above a blue square"),
        (LEFT, "a red circle"),
        (LEFT, "a red circle and a blue square"),
        (LEFT, "a big red circle left of a blue square"),
        (LEFT, "a red circle left of a blue square left of a green triangle"),
        (BIG, "a red circle"),
        (BIG, "a big circle"),
        (BIG, "a big red circle on the left"),
        (BIG, "a big small red circle"),
        (TOP, "a red circle"),
        (TOP, "a big red circle at the top"),
        (TOP, "at the top a red circle"),
        (TWO, "red circles"),
        (TWO, "two red circle"),
        (TWO, "there is two red circles"),
        (TWO, "three red circles"),
        (TWO, ""),
        (TWO, "red two circles"),
    ],
)
def test_false(scene, caption):
    assert parse_caption(caption) != scene


def test_every_sentence_and_every_phrase_is_used():
    captions = {caption for _, captions in drawn(1000) for caption in captions}
    phrases = {phrase for words in WORDS.values() for group in words.values() for phrase in group}
    assert all(any(phrase in caption for caption in captions) for phrase in phrases)
    starts = {s.split("{")[0] for sentences in SENTENCES.values() for s in sentences}
    assert all(any(caption.startswith(start) for caption in captions) for start in starts)


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(source, tmp_path):
    again, other = Scenes(str(tmp_path), images=50), Scenes(str(tmp_path), images=50, seed=1)
    again.prepare()
    other.prepare()
    for path in source.folder.iterdir():
        content = path.read_bytes()
        assert (again.folder / path.name).read_bytes() == content
        assert (other.folder / path.name).read_bytes() != content


def test_splits_have_every_kind_and_share_no_image(source):
    images, kinds = {}, {}
    for record in source.records():
        images.setdefault(record.split, set()).add(Path(record.path).read_bytes())
        kinds.setdefault(record.split, set()).add(source.scenes[record.image_id]["kind"])
    sizes = {split: len(group) for split, group in images.items()}
    assert sizes == {"train": 40, "val": 5, "test": 5}
    assert len(set.union(*images.values())) == 50
    assert all(group == set(SENTENCES) for group in kinds.values())


def test_objects_have_the_colours_of_the_scene(source):
    for record in source.records():
        scene = source.scenes[record.image_id]
        with Image.open(record.path) as image:
            assert (image.size, image.mode, image.format) == ((224, 224), "RGB", "JPEG")
            pixels = np.asarray(image, dtype=float)
        close = {c: np.abs(pixels - ink).max(axis=2) < 30 for c, ink in PALETTE.items()}
        colours = {colour for colour, where in close.items() if where.mean() > 0.005}
        assert colours == {scene[slot] for slot in ("colour", "other_colour") if slot in scene}


def test_objects_stay_inside_and_apart():
    for number, (scene, _) in enumerate(drawn(200)):
        objects = place_objects(scene, seeded(number))
        circles = [(place, radius * 1.27) for _, _, place, radius in objects]
        for place, radius in circles:
            assert max(abs(place.real), abs(place.imag)) + radius < 0.51
        for (place, radius), (other_place, other_radius) in combinations(circles, 2):
            assert abs(place - other_place) > radius + other_radius


def test_sizes_do_not_overlap():
    radii = {"big": set(), "small": set(), "neither": set()}
    for number, (scene, _) in enumerate(drawn(200)):
        objects = place_objects(scene, seeded(number))
        radii[scene.get("size", "neither")] |= {radius for *_, radius in objects}
    assert max(radii["small"]) < min(radii["neither"])
    assert max(radii["neither"]) < min(radii["big"])


def test_interrupted_drawing_starts_again(tmp_path, monkeypatch):
    source = Scenes(str(tmp_path), images=10)
    with monkeypatch.context() as broken:
        broken.setattr(scenes, "paint_scene", lambda scene, rng: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            source.prepare()
    assert not source.folder.exists()
    source.prepare()
    monkeypatch.setattr(scenes, "paint_scene", None)
    source.prepare()  # once only
    assert len(source.records()) == 10
    assert not list(tmp_path.glob("*.partial"))


def test_too_few_images_for_three_splits(tmp_path):
    with pytest.raises(UserError, match=r"data\.images=9"):
        Scenes(str(tmp_path), images=9)
