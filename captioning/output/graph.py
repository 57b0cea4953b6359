"""The whole captioner as one ONNX graph: pixels in, token ids out.

An encoder and a decoder enter; a file that ONNX Runtime alone runs leaves. Greedy search is a loop
inside the graph, which ends when every sentence has. Next: caption.py, which is shipped beside it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int, UInt8
from onnxscript import ir
from torch import Tensor, nn
from torch.export import Dim

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.features.encoder import Encoder
from captioning.features.onnx import silence_exporter
from captioning.models.decoder import Decoder, State


class EncodeStep(nn.Module):
    """The pictures, before the first word."""

    def __init__(self, encoder: Encoder, decoder: Decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.mean = torch.tensor(encoder.preprocess.mean)[:, None, None]
        self.std = torch.tensor(encoder.preprocess.std)[:, None, None]

    def forward(
        self, pixels: UInt8[Tensor, "batch height width 3"]
    ) -> tuple[Int[Tensor, " batch"], *State]:
        """Return `<bos>` for each picture, and the decoder's first state."""
        images = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        state = self.decoder.begin(self.encoder.to_features(self.encoder.body(images)))
        return torch.full_like(pixels[:, 0, 0, 0], BOS, dtype=torch.int64), *state


class DecodeStep(nn.Module):
    """One word of greedy search, in operations that ONNX has; `next_words` says what may come."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(
        self, time: Int[Tensor, ""], word: Int[Tensor, " batch"], *state: Tensor
    ) -> tuple[Bool[Tensor, ""], Int[Tensor, " batch"], *State]:
        """Return whether a sentence goes on, the likeliest words and the state after them.

        After a sentence's `<eos>` comes `<pad>`.
        """
        logits, state = self.decoder.step(word, state)
        ids = torch.arange(logits.shape[-1])
        never = (ids == PAD) | (ids == BOS) | (ids == UNK) | ((ids == EOS) & (time == 0))
        likeliest = logits.masked_fill(never, -torch.inf).argmax(-1)
        ended = (word == EOS) | (word == PAD)
        word = likeliest.masked_fill(ended, PAD)
        return (word > EOS).any(), word, *state


def greedy_graph(encoder: Encoder, decoder: Decoder, max_length: int = 20) -> ir.Model:
    """Return `pixels`, uint8 `[batch height width 3]`, → `tokens`, int64 `[batch time]`.

    `time` ends with the longest sentence, or after `max_length` words without an `<eos>`.
    """
    decoder = decoder.eval().requires_grad_(False)
    size = encoder.preprocess.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    look = EncodeStep(encoder, decoder)
    time, say = torch.zeros((), dtype=torch.int64), DecodeStep(decoder)
    with torch.no_grad():
        word, *first = look(pixels)
        # Two words on, for a length of 0 or 1 would become part of the graph.
        _, word, *state = say(time, *say(time, word, *first)[1:])
    batch = {0: Dim("batch")}
    grows = batch | {1: Dim("past")}
    shapes = tuple(
        batch if part.shape == before.shape else grows
        for part, before in zip(state, first, strict=True)
    )
    outer = _graph(look, (pixels,), (batch,))
    state = tuple(part.contiguous() for part in state)
    body = _graph(say, (time, word, *state), (None, batch, shapes))
    return _loop(outer, body, max_length)


def _graph(module: nn.Module, arguments: tuple, shapes: tuple) -> ir.Model:
    with silence_exporter(), torch.no_grad():
        return torch.onnx.export(module, arguments, dynamic_shapes=shapes, verbose=False).model


def _loop(outer: ir.Model, body: ir.Model, max_length: int) -> ir.Model:
    """Put `body` into a loop after `outer`; its words, one under the other, are what comes out."""
    graph, inner = outer.graph, body.graph
    # https://onnx.ai/onnx/operators/onnx__Loop.html: a body is given the round, whether to go on
    # and what it carries; it returns whether to go on, what it carries, and what is collected.
    inner.inputs.insert(1, ir.val("going", ir.DataType.BOOL, []))
    spoken = ir.node("Identity", [inner.outputs[1]])
    inner.append(spoken)
    inner.outputs.append(spoken.outputs[0])
    rounds = ir.node("Constant", [], {"value_int": max_length})
    yes = ir.node("Constant", [], {"value": ir.tensor(True)})
    loop = ir.node(
        "Loop",
        [rounds.outputs[0], yes.outputs[0], *graph.outputs],
        {"body": inner},
        num_outputs=len(graph.outputs) + 1,
    )
    tokens = ir.node("Transpose", [loop.outputs[-1]], {"perm": [1, 0]})
    graph.extend([rounds, yes, loop, tokens])
    tokens.outputs[0].name = "tokens"
    tokens.outputs[0].dtype = ir.DataType.INT64
    tokens.outputs[0].shape = ir.Shape([graph.inputs[0].shape[0], "time"])
    graph.outputs[:] = [tokens.outputs[0]]
    ir.passes.Sequential(
        ir.passes.common.LiftSubgraphInitializersToMainGraphPass(),
        ir.passes.common.NameFixPass(),
        ir.passes.common.ClearMetadataAndDocStringPass(),
    )(outer)
    return outer
