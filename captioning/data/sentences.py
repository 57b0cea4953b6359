"""Sentences about drawn scenes: a scene enters and captions leave, or the other way round.

The same sentences write and read, so that any caption can be checked against what was drawn.
scenes.py draws the pictures.
"""

import random
import re

from captioning.data.tokenizer import tokenize

Scene = dict[str, str]  # its kind, and the meaning of every slot of that kind's sentences

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
WORDS: dict[str, dict[str, tuple[str, ...]]] = {  # slot → meaning → the ways to say it
    "size": {"big": ("big", "large", "huge"), "small": ("small", "little", "tiny")},
    "count": {"two": ("two",), "three": ("three",), "four": ("four",)},
    "place": {
        "left": ("on the left", "on the left side"),
        "right": ("on the right", "on the right side"),
        "top": ("at the top", "in the upper part"),
        "bottom": ("at the bottom", "in the lower part"),
        "middle": ("in the middle", "in the center"),
    },
    "relation": {
        "left": ("left of", "to the left of"),
        "right": ("right of", "to the right of"),
        "above": ("above", "over"),
        "below": ("below", "under"),
    },
    "colour": {colour: (colour,) for colour in COLOURS},
    "shape": {shape: (shape,) for shape in SHAPES},
}
WORDS |= {f"other_{slot}": WORDS[slot] for slot in ("colour", "shape")}
MIRRORED = {"right": "left", "below": "above"}  # a scene is kept by the left or the upper object
OPPOSITE = MIRRORED | {there: here for here, there in MIRRORED.items()}

SENTENCES = {  # each says all there is to its kind of scene; only "in the middle" goes unsaid
    "size": (
        "a {size} {colour} {shape}",
        "there is a {size} {colour} {shape}",
        "a picture of a {size} {colour} {shape}",
        "a {size} {colour} {shape} {place}",
        "there is a {size} {colour} {shape} {place}",
        "{place} there is a {size} {colour} {shape}",
    ),
    "place": (
        "a {colour} {shape} {place}",
        "there is a {colour} {shape} {place}",
        "a picture of a {colour} {shape} {place}",
        "{place} there is a {colour} {shape}",
    ),
    "count": (
        "{count} {colour} {shape}s",
        "there are {count} {colour} {shape}s",
        "a picture of {count} {colour} {shape}s",
        "the picture shows {count} {colour} {shape}s",
        "{count} {colour} {shape}s on a pale background",
        "there are {count} {colour} {shape}s on a pale background",
    ),
    "relation": (
        "a {colour} {shape} {relation} a {other_colour} {other_shape}",
        "there is a {colour} {shape} {relation} a {other_colour} {other_shape}",
        "a picture of a {colour} {shape} {relation} a {other_colour} {other_shape}",
        "the picture shows a {colour} {shape} {relation} a {other_colour} {other_shape}",
    ),
}
MEANINGS = {
    slot: {way: meaning for meaning, ways in words.items() for way in ways}
    for slot, words in WORDS.items()
}
SLOTS = {slot: f"(?P<{slot}>{'|'.join(ways)})" for slot, ways in MEANINGS.items()}
PATTERNS = [
    (kind, re.compile(sentence.format(**SLOTS)))
    for kind, sentences in SENTENCES.items()
    for sentence in sentences
]


def draw_scene(kind: str, lots: random.Random) -> Scene:
    """Draw lots for what a picture of this kind shows."""
    colour, other_colour = lots.sample(COLOURS, 2)
    shape, other_shape = lots.sample(SHAPES, 2)
    scene = {"kind": kind, "colour": colour, "shape": shape}
    if kind == "size":
        return scene | {"size": lots.choice(("big", "small")), "place": "middle"}
    if kind == "place":
        return scene | {"place": lots.choice(("left", "right", "top", "bottom"))}
    if kind == "count":
        return scene | {"count": lots.choice(("two", "three", "four"))}
    others = {"other_colour": other_colour, "other_shape": other_shape}
    return scene | {"relation": lots.choice(("left", "above"))} | others


def write_captions(scene: Scene, lots: random.Random, number: int = 5) -> list[str]:
    """Return different captions, all true of the scene."""
    captions: list[str] = []
    while len(captions) < number:
        told = _mirror(scene) if "relation" in scene and lots.random() < 0.5 else scene
        sentence = lots.choice(SENTENCES[scene["kind"]])
        words = {s: lots.choice(WORDS[s][meaning]) for s, meaning in told.items() if s in WORDS}
        caption = sentence.format(**words)
        if caption not in captions:
            captions.append(caption)
    return captions


def read_caption(caption: str) -> Scene | None:
    """Return the scene of which a caption is true, or None where it is none of `SENTENCES`.

    Case and punctuation do not matter.
    """
    text = " ".join(tokenize(caption))
    for kind, pattern in PATTERNS:
        if found := pattern.fullmatch(text):
            told = {slot: MEANINGS[slot][way] for slot, way in found.groupdict().items()}
            scene = {"kind": kind} | ({"place": "middle"} if kind == "size" else {}) | told
            return _mirror(scene) if scene.get("relation") in MIRRORED else scene
    return None


def _mirror(scene: Scene) -> Scene:
    """Tell the same from the other object: "a left of b" becomes "b right of a"."""
    other = {slot: scene[f"other_{slot}"] for slot in ("colour", "shape")}
    this = {f"other_{slot}": scene[slot] for slot in ("colour", "shape")}
    return scene | other | this | {"relation": OPPOSITE[scene["relation"]]}
