"""What every decoder is: features and words in, next-word logits out.

A model is one file with a class of two methods and a layer: `begin`, `decode` and `output`. Search
drives it by `step`, training by `begin`, `decode` and `output`, so that pictures are looked at once
each and logits are made for real words only. No decoder knows Lightning, Hydra or strings.
"""

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Decoder(nn.Module):
    """Every part of its state has a picture or a sentence a row: search only reorders rows.

    A part that grows with the words read does so along its second axis. No part is changed in
    place: what `decode` returns as it was is taken to be equal for all sentences of an image.
    """

    shared_parts = 0
    """How many parts, at the start of the state, all sentences of an image share in a search.

    They keep one row an image. `decode` is given k times as many rows of tokens, those of an image
    next to each other, and returns these parts as they are.
    """

    output: nn.Linear
    """`[… hidden]` → logits `[… vocabulary]`; with a bias, as the loss takes weight and bias."""

    @abstractmethod
    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return the state before the first word."""

    @abstractmethod
    def decode(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what `output` makes the logits of the next ones from, and the state.

        The same words one by one give the same.
        """

    def repeat(self, state: State, times: int) -> State:
        """Return the state of `times` sentences an image, next to each other."""
        shared, own = state[: self.shared_parts], state[self.shared_parts :]
        return *shared, *(part.repeat_interleave(times, 0) for part in own)

    def step(
        self, tokens: Int[Tensor, " batch"], state: State
    ) -> tuple[Float[Tensor, "batch vocabulary"], State]:
        """Read one word a row; return the logits of the next one and the new state."""
        hidden, state = self.decode(tokens[:, None], state)
        return self.output(hidden[:, 0]), state

    def forward(
        self, features: Float[Tensor, "batch *region feature"], tokens: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Teacher forcing: the logits after each of the tokens, all at once."""
        return self.output(self.decode(tokens, self.begin(features))[0])
