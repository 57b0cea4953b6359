"""Write true captions of drawn scenes, and parse captions back into scenes.

Both use the same sentence templates, so that any caption can be checked against what was drawn.
"""

import random
import re

from captioning.data.tokenizer import tokenize

Scene = dict[str, str]  # its kind, and the meaning of every slot of that kind's sentences

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
WORDS: dict[str, dict[str, tuple[str, ...]]] = {  # slot → meaning → its phrases
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
MIRRORED = {"right": "left", "below": "above"}  # a scene starts with its left or upper object
OPPOSITE = MIRRORED | {opposite: relation for relation, opposite in MIRRORED.items()}

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
    slot: {phrase: meaning for meaning, phrases in words.items() for phrase in phrases}
    for slot, words in WORDS.items()
}
SLOTS = {slot: f"(?P<{slot}>{'|'.join(phrases)})" for slot, phrases in MEANINGS.items()}
PATTERNS = [
    (kind, re.compile(sentence.format(**SLOTS)))
    for kind, sentences in SENTENCES.items()
    for sentence in sentences
]


def draw_scene(kind: str, rng: random.Random) -> Scene:
    """Return a random scene of one of the kinds of `SENTENCES`."""
    colour, other_colour = rng.sample(COLOURS, 2)
    shape, other_shape = rng.sample(SHAPES, 2)
    scene = {"kind": kind, "colour": colour, "shape": shape}
    if kind == "size":
        return scene | {"size": rng.choice(("big", "small")), "place": "middle"}
    if kind == "place":
        return scene | {"place": rng.choice(("left", "right", "top", "bottom"))}
    if kind == "count":
        return scene | {"count": rng.choice(("two", "three", "four"))}
    # The order of the keys is the order in which `caption_scene` draws words.
    other = {"other_colour": other_colour, "other_shape": other_shape}
    return scene | {"relation": rng.choice(("left", "above"))} | other


def caption_scene(scene: Scene, rng: random.Random, number: int = 5) -> list[str]:
    """Return different captions, all true of the scene."""
    captions: list[str] = []
    while len(captions) < number:
        view = _mirror(scene) if "relation" in scene and rng.random() < 0.5 else scene
        sentence = rng.choice(SENTENCES[scene["kind"]])
        words = {s: rng.choice(WORDS[s][meaning]) for s, meaning in view.items() if s in WORDS}
        caption = sentence.format(**words)
        if caption not in captions:
            captions.append(caption)
    return captions


def parse_caption(caption: str) -> Scene | None:
    """Return the scene of which a caption is true, or None where it is none of `SENTENCES`."""
    text = " ".join(tokenize(caption))
    for kind, pattern in PATTERNS:
        if match := pattern.fullmatch(text):
            scene = {"kind": kind} | ({"place": "middle"} if kind == "size" else {})
            scene |= {slot: MEANINGS[slot][phrase] for slot, phrase in match.groupdict().items()}
            return _mirror(scene) if scene.get("relation") in MIRRORED else scene
    return None


def _mirror(scene: Scene) -> Scene:
    """Return the same scene from the other object: "a left of b" becomes "b right of a"."""
    other = {slot: scene[f"other_{slot}"] for slot in ("colour", "shape")}
    first = {f"other_{slot}": scene[slot] for slot in ("colour", "shape")}
    return scene | other | first | {"relation": OPPOSITE[scene["relation"]]}
