"""Map caption words to token ids and back.

A vocabulary is made from the training split only; every checkpoint holds its list of words.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

from captioning import UserError
from captioning.data.tokenizer import detokenize, tokenize

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)


class Vocabulary:
    """Words and their ids; `<pad> <bos> <eos> <unk>` are ids 0 to 3."""

    def __init__(self, words: Sequence[str]):
        self.words = list(words)
        if not all(isinstance(word, str) for word in self.words):
            raise UserError("a vocabulary holds words, which are text")
        # Text that spells a special token is an unknown word, not the token.
        self.ids = {word: number for number, word in enumerate(self.words[4:], 4)}
        if tuple(self.words[:4]) != SPECIALS or len(self.ids) != len(self.words) - 4:
            raise UserError(f"a vocabulary starts with {' '.join(SPECIALS)} and repeats no word")

    @classmethod
    def from_captions(cls, captions: Iterable[str], min_count: int = 1) -> Vocabulary:
        """Keep every word that the captions hold at least `min_count` times, most frequent first.

        Raises UserError if no word is left.
        """
        counts = Counter(word for caption in captions for word in tokenize(caption))
        words = [word for word, count in counts.items() if count >= min_count]
        words = sorted(set(words) - {*SPECIALS}, key=lambda word: (-counts[word], word))
        if not words:
            raise UserError(
                f"no word occurs {min_count} times in the training captions; "
                "lower datamodule.min_count"
            )
        return cls([*SPECIALS, *words])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Return `<bos>`, one id per word (`<unk>` where unknown), `<eos>`."""
        return [BOS, *(self.ids.get(word, UNK) for word in tokenize(caption)), EOS]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text up to `<eos>`, without `<pad>` and `<bos>`."""
        caption = takewhile(lambda token: token != EOS, tokens)
        return detokenize([self.words[token] for token in caption if token not in (PAD, BOS)])

    @property
    def sha256(self) -> str:
        """A fingerprint of the words and their order."""
        return hashlib.sha256("\n".join(self.words).encode("utf-8", "surrogatepass")).hexdigest()
