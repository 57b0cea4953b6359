"""Drawn scenes: what is drawn, what is written about it, and which captions are true."""

import random
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning import UserError
from captioning.data import scenes as module
from captioning.data.scenes import KINDS, PALETTE, Scenes, arrange
from captioning.data.sentences import (
    COLOURS,
    SENTENCES,
    WORDS,
    draw_scene,
    read_caption,
    write_captions,
)

SYNONYMS = [{"big", "large", "huge"}, {"small", "little", "tiny"}, {"middle", "center"}]
SYNONYMS += [{"above", "over"}, {"below", "under"}]
LEFT = {"kind": "relation", "colour": "red", "shape": "circle", "relation": "left"}
LEFT |= {"other_colour": "blue", "other_shape": "square"}
BIG = {"kind": "size", "colour": "red", "shape": "circle", "size": "big", "place": "middle"}
TOP = {"kind": "place", "colour": "red", "shape": "circle", "place": "top"}
TWO = {"kind": "count", "colour": "red", "shape": "circle", "count": "two"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Scenes:
    made = Scenes(str(tmp_path_factory.mktemp("data")), images=50)
    made.prepare()
    return made


def lots(number: int) -> random.Random:
    return random.Random(f"test/{number}")


def drawn(number: int) -> list[tuple[dict[str, str], list[str]]]:
    """Scenes of every kind in turn, with their captions."""
    made = []
    for i in range(number):
        scene = draw_scene(KINDS[i % len(KINDS)], lots(i))
        made.append((scene, write_captions(scene, lots(i))))
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_caption_is_true_of_its_own_picture(source):
    for record in source.records():
        assert all(source.is_true(record.image_id, caption) for caption in record.captions)


def test_captions_are_false_of_every_other_scene(source):
    for record in source.records():
        for other in source.records():
            same = source.scenes[record.image_id] == source.scenes[other.image_id]
            assert source.is_true(record.image_id, other.captions[0]) == same


def test_another_word_anywhere_makes_a_caption_false():
    vocabulary = sorted({w for _, captions in drawn(100) for c in captions for w in c.split()})
    for scene, captions in drawn(10):
        words = captions[0].split()
        for i, word in enumerate(words):
            for other in vocabulary:
                if other != word and not any({word, other} <= same for same in SYNONYMS):
                    changed = " ".join([*words[:i], other, *words[i + 1 :]])
                    assert read_caption(changed) != scene, changed


def test_a_word_less_makes_a_caption_false():
    for scene, captions in drawn(100):
        for words in map(str.split, captions):
            for i, word in enumerate(words):
                shorter = " ".join(words[:i] + words[i + 1 :])
                assert read_caption(shorter) != scene or word == "side", shorter


def test_a_word_more_makes_a_caption_false():
    for scene, captions in drawn(100):
        for words in map(str.split, captions):
            for i, word in enumerate(words):
                assert read_caption(" ".join([*words[:i], word, *words[i:]])) != scene


def test_another_order_of_the_words_makes_a_caption_false():
    words = ("a", "red", "circle", "at", "the", "top")
    for order in permutations(words):
        assert (read_caption(" ".join(order)) == TOP) == (order == words)


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
    assert read_caption(caption) == scene


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (LEFT, "a blue square left of a red circle"),
        (LEFT, "a red square left of a blue circle"),
        (LEFT, "a red circle above a blue square"),
        (LEFT, "a red circle"),
        (LEFT, "a red circle and a blue square"),
        (LEFT, "a red circle on the left"),
        (LEFT, "a big red circle left of a blue square"),
        (LEFT, "a red circle left of a blue square left of a green triangle"),
        (BIG, "a red circle"),
        (BIG, "a red circle in the middle"),
        (BIG, "a big circle"),
        (BIG, "a big red circle on the left"),
        (BIG, "a big small red circle"),
        (TOP, "a red circle"),
        (TOP, "a big red circle at the top"),
        (TOP, "a red circle at the top on the left"),
        (TWO, "red circles"),
        (TWO, "two red circle"),
        (TWO, "there is two red circles"),
        (TWO, "two red circles in the middle"),
        (TWO, "three red circles"),
        (TWO, ""),
        (TWO, "circles circles red two"),
    ],
)
def test_false(scene, caption):
    assert read_caption(caption) != scene


def test_the_captions_of_a_picture_differ():
    assert all(len(set(captions)) == 5 for _, captions in drawn(100))


def test_every_sentence_and_every_wording_is_used():
    text = {caption for _, captions in drawn(1000) for caption in captions}
    ways = {way for words in WORDS.values() for ways in words.values() for way in ways}
    assert all(any(way in caption for caption in text) for way in ways)
    starts = {s.split("{")[0] for sentences in SENTENCES.values() for s in sentences}
    assert all(any(caption.startswith(start) for caption in text) for start in starts)


def test_all_sentences_say_all_there_is_to_say():
    for scene, _ in drawn(5):
        needed = set(scene) - {"kind"} - ({"place"} if scene["kind"] == "size" else set())
        for sentence in SENTENCES[scene["kind"]]:
            assert all(f"{{{slot}}}" in sentence for slot in needed)


def test_the_same_seed_draws_the_same_bytes(source, tmp_path):
    again = Scenes(str(tmp_path), images=50)
    again.prepare()
    assert again.folder.name == source.folder.name
    assert contents(again.folder) == contents(source.folder)


def test_another_seed_draws_other_pictures(source, tmp_path):
    other = Scenes(str(tmp_path), images=10, seed=1)
    other.prepare()
    ours, theirs = contents(source.folder), contents(other.folder)
    assert not set(ours.values()) & set(theirs.values())


def test_splits_share_no_picture(source):
    pictures = {split: set() for split in ("train", "val", "test")}
    for record in source.records():
        pictures[record.split].add(Path(record.path).read_bytes())
    assert [len(found) for found in pictures.values()] == [40, 5, 5]
    assert len(set.union(*pictures.values())) == 50


def test_every_split_has_every_kind(source):
    for split in ("train", "val", "test"):
        ids = [record.image_id for record in source.records() if record.split == split]
        assert {source.scenes[image_id]["kind"] for image_id in ids} == set(SENTENCES)


def test_pictures_are_what_the_encoder_reads(source):
    with Image.open(source.records()[0].path) as picture:
        assert (picture.size, picture.mode, picture.format) == ((224, 224), "RGB", "JPEG")


def test_objects_have_the_colour_that_is_told(source):
    for record in source.records():
        scene = source.scenes[record.image_id]
        with Image.open(record.path) as picture:
            pixels = np.asarray(picture, dtype=float)
        close = {c: np.abs(pixels - ink).max(axis=2) < 30 for c, ink in PALETTE.items()}
        seen = {colour for colour, where in close.items() if where.mean() > 0.005}
        assert seen == {scene[slot] for slot in ("colour", "other_colour") if slot in scene}


def test_objects_stay_inside_and_apart():
    for number, (scene, _) in enumerate(drawn(200)):
        circles = [(place, radius * 1.27) for _, _, place, radius in arrange(scene, lots(number))]
        for place, radius in circles:
            assert max(abs(place.real), abs(place.imag)) + radius < 0.51
        for (here, one), (there, other) in combinations(circles, 2):
            assert abs(here - there) > one + other


def test_a_size_is_told_apart_from_the_others():
    radii = {"big": set(), "small": set(), "neither": set()}
    for number, (scene, _) in enumerate(drawn(200)):
        radii[scene.get("size", "neither")] |= {thing[3] for thing in arrange(scene, lots(number))}
    assert max(radii["small"]) < min(radii["neither"])
    assert max(radii["neither"]) < min(radii["big"])


def test_prepare_is_done_once(source, monkeypatch):
    monkeypatch.setattr(module, "paint", None)
    source.prepare()


def test_interrupted_drawing_starts_again(tmp_path, monkeypatch):
    source = Scenes(str(tmp_path), images=10)
    with monkeypatch.context() as broken:
        broken.setattr(module, "paint", lambda scene, lots: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            source.prepare()
    assert not source.folder.exists()
    source.prepare()
    assert len(source.records()) == 10
    assert not list(tmp_path.glob("*.partial"))


def test_too_few_pictures_for_three_splits(tmp_path):
    with pytest.raises(UserError, match=r"data\.images=9"):
        Scenes(str(tmp_path), images=9)


def test_every_colour_and_shape_can_be_drawn():
    assert set(COLOURS) == set(PALETTE)
    assert set(WORDS["shape"]) == set(module.OUTLINES)
