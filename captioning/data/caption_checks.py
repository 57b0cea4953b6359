"""Find captions in which the tokenizer would find no word, or one for a whole sentence."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from captioning.data.layouts import Row

EMPTY = "empty captions"
NO_BLANKS = "captions that are one word, in a script without blanks"

SYLLABLES = {"CJK": 1.0, "HIRAGANA": 1.0} | dict.fromkeys(  # a letter, by script without blanks
    ("KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"), 0.5
)


def check_captions(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the captions without a word, and those whose words are not apart."""
    empty = [row for row in rows if not has_word(row.caption)]
    joined = [row for row in rows if lacks_blanks(row.caption)]
    if 20 * len(joined) < len(rows):
        joined = []  # a stray caption among many, or a long word, is no fault
    return {
        kind: [f"{row.where} ({row.image}): {row.caption[:60]!r}" for row in wrong]
        for kind, wrong in ((EMPTY, empty), (NO_BLANKS, joined))
    }


def has_word(caption: str) -> bool:
    """Return whether a caption holds a letter or a digit: "!!", "&nbsp;" and emoji are no words."""
    return any(map(str.isalnum, html.unescape(caption.lower())))


def lacks_blanks(caption: str) -> bool:
    """Return whether a caption has more than three syllables a word, in scripts without blanks.

    Segmented Chinese and Japanese have about two, and a caption has several words.
    """
    if caption.isascii():
        return False
    scripts = (unicodedata.name(letter, "").split(" ")[0] for letter in caption)
    syllables = sum(SYLLABLES.get(script, 0) for script in scripts)
    return syllables > 3 * len(caption.replace("\u200b", " ").split())
