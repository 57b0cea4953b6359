"""The graph, against greedy search by torch; the encoder is a real ResNet18 with random weights."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnxscript import ir

from captioning.data.vocabulary import EOS
from captioning.features.encoder import Encoder
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder
from captioning.models.updown import UpDownDecoder
from captioning.output.graph import greedy_graph
from captioning.search.beam import greedy_search

pytestmark = pytest.mark.slow

SIZE = 64
WORDS = 40
MODELS = {
    "lstm": lambda d: LSTMDecoder(WORDS, d, 8, 8),
    "two tied layers": lambda d: LSTMDecoder(WORDS, d, 8, 8, num_layers=2, tied=True),
    "pre": lambda d: LSTMDecoder(WORDS, d, 8, 8, inject="pre"),
    "par": lambda d: LSTMDecoder(WORDS, d, 8, 8, inject="par"),
    "merge": lambda d: MergeDecoder(WORDS, d, 8),
    "attention": lambda d: AttentionDecoder(WORDS, d, 8, 8, heads=2),
    "updown": lambda d: UpDownDecoder(WORDS, d, 8, 8),
    "transformer": lambda d: TransformerDecoder(WORDS, d, 8, heads=2),
}


@pytest.fixture(scope="module", params=MODELS)
def captioner(request):
    """An encoder, a decoder whose captions vary, and a session of ONNX Runtime."""
    grid = request.param in ("attention", "updown", "transformer")
    encoder = Encoder("resnet18", None, "grid" if grid else "pooled", image_size=SIZE)
    torch.manual_seed(1)
    decoder = MODELS[request.param](encoder.feature_shape[-1]).eval()
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight)
    end_at_different_times(encoder, decoder)
    return encoder, decoder, session_of(encoder, decoder)


def end_at_different_times(encoder, decoder):
    """Make <eos> likelier until some captions end early and others do not, if ever they do."""
    bias = decoder.output.bias
    before = bias.detach().clone()
    with torch.no_grad():
        for _ in range(40):
            lengths = (expected(encoder, decoder, make_pixels(9)) > EOS).sum(1)
            if len(set(lengths.tolist())) > 1:
                return
            bias[EOS] += 0.25
        bias.copy_(before)


def session_of(encoder, decoder):
    model = ir.to_proto(greedy_graph(encoder, decoder)).SerializeToString()
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def make_pixels(number):
    """Images of different colours, with some noise."""
    rng = np.random.default_rng(number)
    colours = rng.integers(0, 256, (number, 1, 1, 3))
    noise = rng.integers(-9, 10, (number, SIZE, SIZE, 3))
    return (colours + noise).clip(0, 255).astype(np.uint8)


def expected(encoder, decoder, pixels):
    values = encoder.preprocess.mean, encoder.preprocess.std
    mean, std = (torch.tensor(value)[:, None, None] for value in values)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    return greedy_search(decoder, encoder(images)).tokens[:, 0].numpy()


def test_its_tokens_are_those_of_greedy_search(captioner):
    encoder, decoder, session = captioner
    for number in (1, 2, 9):
        pixels = make_pixels(number)
        (tokens,) = session.run(["tokens"], {"pixels": pixels})
        assert tokens.dtype == np.int64
        assert tokens.tolist() == expected(encoder, decoder, pixels)[:, :20].tolist()


def test_it_stops_with_the_longest_caption():
    encoder = Encoder("resnet18", None, image_size=SIZE)
    decoder = MergeDecoder(WORDS, encoder.feature_shape[-1], 8)
    with torch.no_grad():
        decoder.output.bias[EOS] = 1000
    (tokens,) = session_of(encoder, decoder).run(["tokens"], {"pixels": make_pixels(3)})
    assert tokens.shape == (3, 2)
    assert (tokens[:, 0] > EOS).all()
    assert (tokens[:, 1] == EOS).all()


def test_its_input_and_output_have_names_and_sizes(captioner):
    (pixels,), (tokens,) = captioner[2].get_inputs(), captioner[2].get_outputs()
    assert (pixels.name, pixels.type) == ("pixels", "tensor(uint8)")
    assert pixels.shape == ["batch", SIZE, SIZE, 3]
    assert (tokens.name, tokens.type) == ("tokens", "tensor(int64)")
    assert tokens.shape == ["batch", "time"]
