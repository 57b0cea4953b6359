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
MODELS = [
    ("pooled", LSTMDecoder, {}),
    ("pooled", LSTMDecoder, {"num_layers": 2, "tied": True}),
    ("pooled", LSTMDecoder, {"inject": "pre"}),
    ("pooled", LSTMDecoder, {"inject": "par"}),
    ("pooled", MergeDecoder, {}),
    ("grid", AttentionDecoder, {"heads": 2}),
    ("grid", UpDownDecoder, {}),
    ("grid", TransformerDecoder, {"heads": 2}),
]


@pytest.fixture(params=MODELS, ids=str)
def captioner(request):
    """An encoder, a decoder whose captions vary, and a session of ONNX Runtime."""
    features, model, options = request.param
    encoder = Encoder("resnet18", None, features, image_size=SIZE)
    torch.manual_seed(1)
    decoder = model(WORDS, encoder.feature_shape[-1], hidden_dim=8, **options).eval()
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
    (source,), (output,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type) == ("pixels", "tensor(uint8)")
    assert source.shape == ["batch", SIZE, SIZE, 3]
    assert (output.name, output.type) == ("tokens", "tensor(int64)")
    assert output.shape == ["batch", "time"]
    for number in (1, 2, 9):
        pixels = make_pixels(number)
        (tokens,) = session.run(["tokens"], {"pixels": pixels})
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
