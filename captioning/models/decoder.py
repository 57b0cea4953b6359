"""What every decoder is: image features and previous words give the logits of the next word.

A model is one file with a class of two methods, `begin` and `decode`, and a layer `output`.
Training and search both go through them. Decoders depend on neither Lightning, Hydra nor text.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

Features = Float[Tensor, "batch *region feature"]
Tokens = Int[Tensor, "batch time"]
HiddenStates = Float[Tensor, "batch time hidden"]
Logits = Float[Tensor, "batch time vocabulary"]
State = tuple[Tensor, ...]


class Decoder(nn.Module):
    """Base class of all decoders: `begin` makes a state, `decode` and `output` predict words.

    The first dimension of every tensor in a state is the batch, so that search can reorder its
    rows; a tensor that grows with the decoded words does so along its second dimension. None is
    changed in place: what `decode` returns unchanged is equal for all hypotheses of an image.
    """

    shared_parts = 0
    """How many tensors, at the start of the state, keep one row per image in a search.

    `decode` gets k times as many rows of tokens, those of an image next to each other.
    """

    output: nn.Linear
    """`[… hidden]` → logits `[… vocabulary]`; with a bias, as the loss takes weight and bias."""

    def begin(self, features: Features) -> State:
        """Return the state before the first word."""
        raise NotImplementedError

    def decode(self, tokens: Tokens, state: State) -> tuple[HiddenStates, State]:
        """Return the hidden states from which `output` predicts the next words, and the new state.

        The result is that of decoding the tokens one by one.
        """
        raise NotImplementedError

    def repeat(self, state: State, times: int) -> State:
        """Repeat the state for `times` hypotheses per image, next to each other."""
        shared, own = state[: self.shared_parts], state[self.shared_parts :]
        return *shared, *(part.repeat_interleave(times, 0) for part in own)

    def step(
        self, tokens: Int[Tensor, " batch"], state: State
    ) -> tuple[Float[Tensor, "batch vocabulary"], State]:
        """Decode one token a row; return the logits of the next one and the new state."""
        hidden, state = self.decode(tokens[:, None], state)
        return self.output(hidden[:, 0]), state

    def forward(self, features: Features, tokens: Tokens) -> Logits:
        """Return the logits after each token at once (teacher forcing)."""
        return self.output(self.decode(tokens, self.begin(features))[0])
