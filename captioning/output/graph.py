"""The whole captioner as one ONNX graph: from pixels to token ids, with greedy search as a loop.

onnx_script.py, shipped beside it, shows how to run it.
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
    """Normalization, encoder and the decoder's initial state."""

    def __init__(self, encoder: Encoder, decoder: Decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(
        self, pixels: UInt8[Tensor, "batch height width 3"]
    ) -> tuple[Int[Tensor, " batch"], *State]:
        """Return `<bos>` for each image, and the decoder's initial state."""
        images = self.encoder.preprocess.normalize(pixels.permute(0, 3, 1, 2))
        state = self.decoder.begin(self.encoder.to_features(self.encoder.body(images)))
        return torch.full_like(pixels[:, 0, 0, 0], BOS, dtype=torch.int64), *state


class DecodeStep(nn.Module):
    """One word of greedy search; `search.constraints` says which words it never chooses."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(
        self, time: Int[Tensor, ""], token: Int[Tensor, " batch"], *state: Tensor
    ) -> tuple[Bool[Tensor, ""], Int[Tensor, " batch"], *State]:
        """Return whether a caption is unfinished, the next tokens and the new state."""
        logits, state = self.decoder.step(token, state)
        ids = torch.arange(logits.shape[-1])
        never = (ids == PAD) | (ids == BOS) | (ids == UNK) | ((ids == EOS) & (time == 0))
        likeliest = logits.masked_fill(never, -torch.inf).argmax(-1)
        token = likeliest.masked_fill((token == EOS) | (token == PAD), PAD)
        return (token > EOS).any(), token, *state


def greedy_graph(encoder: Encoder, decoder: Decoder, max_length: int = 20) -> ir.Model:
    """Return the graph: `pixels`, uint8 `[batch height width 3]` → `tokens`, int64 `[batch time]`.

    `time` ends with the longest caption, or after `max_length` words without an `<eos>`.
    """
    decoder = decoder.eval().requires_grad_(False)
    size = encoder.preprocess.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    time = torch.zeros((), dtype=torch.int64)
    encode, decode = EncodeStep(encoder, decoder), DecodeStep(decoder)
    with torch.no_grad():
        token, *initial = encode(pixels)
        # Two steps, for a length of 0 or 1 would become a constant of the graph.
        _, token, *state = decode(time, *decode(time, token, *initial)[1:])
    batch = {0: Dim("batch")}
    shapes = tuple(
        batch if part.shape == before.shape else batch | {1: Dim("past")}
        for part, before in zip(state, initial, strict=True)
    )
    graph = _export(encode, (pixels,), (batch,))
    state = tuple(part.contiguous() for part in state)
    body = _export(decode, (time, token, *state), (None, batch, shapes))
    return _append_loop(graph, body, max_length)


def _export(module: nn.Module, arguments: tuple, shapes: tuple) -> ir.Model:
    with silence_exporter(), torch.no_grad():
        options = {"dynamic_shapes": shapes, "dynamo": True, "verbose": False}
        return torch.onnx.export(module, arguments, **options).model


def _append_loop(model: ir.Model, body: ir.Model, max_length: int) -> ir.Model:
    """Append a loop of `body` to `model`, whose output are then the tokens of all rounds."""
    graph, inner = model.graph, body.graph
    # https://onnx.ai/onnx/operators/onnx__Loop.html: a body takes the round, whether to go on and
    # what it carries; it returns whether to go on, what it carries, and what is collected.
    inner.inputs.insert(1, ir.val("unfinished", ir.DataType.BOOL, []))
    collected = ir.node("Identity", [inner.outputs[1]])
    inner.append(collected)
    inner.outputs.append(collected.outputs[0])
    rounds = ir.node("Constant", [], {"value_int": max_length})
    true = ir.node("Constant", [], {"value": ir.tensor(True)})
    loop = ir.node(
        "Loop",
        [rounds.outputs[0], true.outputs[0], *graph.outputs],
        {"body": inner},
        num_outputs=len(graph.outputs) + 1,
    )
    transpose = ir.node("Transpose", [loop.outputs[-1]], {"perm": [1, 0]})
    graph.extend([rounds, true, loop, transpose])
    tokens = transpose.outputs[0]
    tokens.name, tokens.dtype = "tokens", ir.DataType.INT64
    tokens.shape = ir.Shape([graph.inputs[0].shape[0], "time"])
    graph.outputs[:] = [tokens]
    ir.passes.Sequential(
        ir.passes.common.LiftSubgraphInitializersToMainGraphPass(),
        ir.passes.common.NameFixPass(),
        ir.passes.common.ClearMetadataAndDocStringPass(),
    )(model)
    return model
