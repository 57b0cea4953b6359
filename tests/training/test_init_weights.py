"""Starting from another captioner's weights: words go by name, the rest whole, or not at all."""

import re

import pytest
import torch

from captioning import UserError
from captioning.checkpoint import shapes
from captioning.config.build import build_decoder
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.training.init_weights import check_fits, init_weights, read_init

MODELS = {
    "lstm": {"_target_": "captioning.models.lstm.LSTMDecoder", "embed_dim": 4, "hidden_dim": 6},
    "merge": {"_target_": "captioning.models.merge.MergeDecoder", "hidden_dim": 6},
    "attention": {
        "_target_": "captioning.models.attention.AttentionDecoder",
        "embed_dim": 4,
        "hidden_dim": 6,
        "heads": 2,
    },
    "updown": {"_target_": "captioning.models.updown.UpDownDecoder", "hidden_dim": 6},
    "transformer": {
        "_target_": "captioning.models.transformer.TransformerDecoder",
        "hidden_dim": 8,
        "heads": 2,
    },
}
MODELS["tied"] = MODELS["lstm"] | {"tied": True}
IDENTITY = {"name": "resnet18", "weights": "5ha", "features": "grid"}
ENCODER = {"name": "resnet18", "weights": "imagenet_v1", "features": "grid"}
OLD = Vocabulary([*SPECIALS, "a", "dog", "red", "ball"])
# As many words: others, and in another order.
NEW = Vocabulary([*SPECIALS, "ball", "a", "cat", "dog"])
MORE = Vocabulary([*SPECIALS, "cat", "ball", "green", "a", "dog", "runs"])


def captioner(model, words=OLD.words):
    """Return what `read_model` would of a captioner with weights that no new one has."""
    decoder = build_decoder(model, len(words), 5)
    weights = {
        f"decoder.{key}": 3 + torch.rand(s) for key, s in shapes(decoder.state_dict()).items()
    }
    if model.get("tied"):
        weights["decoder.output.weight"] = weights["decoder.embedding.weight"]
    config = {"encoder": ENCODER, "model": model}
    contents = {"vocabulary": words, "encoder": IDENTITY, "config": config}
    return {"captioning": contents, "state_dict": weights}


@pytest.mark.parametrize("vocabulary", [OLD, NEW, MORE], ids=["same", "other order", "more"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_words_go_by_name_and_the_rest_whole(model, vocabulary):
    decoder, source = build_decoder(model, len(vocabulary), 5), captioner(model)
    fresh = {key: value.clone() for key, value in decoder.state_dict().items()}
    count = init_weights(decoder, vocabulary, source)
    assert count == len({*vocabulary.words} & {*OLD.words}) - len(SPECIALS)
    for key, value in decoder.state_dict().items():
        old = source["state_dict"][f"decoder.{key}"]
        if key not in ("embedding.weight", "output.weight", "output.bias"):
            assert torch.equal(value, old.to(value.dtype)), key
            continue
        for row, word in enumerate(vocabulary.words):
            of, place = (old, OLD.words.index(word)) if word in OLD.words else (fresh[key], row)
            assert torch.equal(value[row], of[place]), (key, word)
    if model.get("tied"):
        assert decoder.output.weight is decoder.embedding.weight


def test_an_embedding_of_something_else_is_copied_whole():
    class WithPositions(type(build_decoder(MODELS["merge"], 8, 5))):
        def __init__(self, vocabulary_size):
            super().__init__(vocabulary_size, 5, 6)
            self.positions = torch.nn.Embedding(20, 6)

    decoder, source = WithPositions(len(MORE)), captioner(MODELS["merge"])
    positions = source["state_dict"]["decoder.positions.weight"] = torch.rand(20, 6)
    init_weights(decoder, MORE, source)
    assert torch.equal(decoder.positions.weight, positions)


def check(model, encoder=(), identity=(), init="a.ckpt", source=None):
    """Check whether the attention captioner fits a run of these settings."""
    config = {"init": init, "encoder": ENCODER | dict(encoder), "model": model}
    decoder = build_decoder(model, len(OLD), 5)
    check_fits(source or captioner(MODELS["attention"]), config, IDENTITY | dict(identity), decoder)


def test_dropout_and_the_place_of_the_encoders_weights_may_differ():
    check(MODELS["attention"] | {"dropout": 0.1}, {"weights": "moved.pth"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": MODELS["attention"] | {"hidden_dim": 8}}, "type model.hidden_dim=6"),
        ({"model": MODELS["attention"] | {"heads": 3}}, "type model.heads=2"),
        (
            {"model": MODELS["merge"]},
            "init=a.ckpt is a captioner of another encoder or model; type model=attention "
            "model.embed_dim=4 model.heads=2",
        ),
        (
            {
                "init": "default",
                "encoder": {"name": "resnet50", "features": "pooled"},
                "identity": {"name": "resnet50", "features": "pooled", "weights": "other"},
            },
            "type experiment=finetune, or encoder=resnet18 encoder.features=grid",
        ),
        (
            {"identity": {"weights": "other"}},
            "another encoder or model (encoder.weights: 5ha → other); name one",
        ),
    ],
)
def test_a_captioner_of_something_else_is_refused_with_what_to_type(change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check(**{"model": MODELS["attention"]} | change)


def test_a_captioner_whose_config_leaves_out_what_differs_is_refused():
    source = captioner(MODELS["lstm"])  # of a release that knew no `inject`
    with pytest.raises(UserError, match="its weights have other sizes"):
        check(MODELS["lstm"] | {"inject": "par"}, source=source)


@pytest.mark.parametrize("init", ["default", "nowhere.ckpt"])
def test_what_is_not_there_is_a_sentence(init, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("captioning.checkpoint.PRETRAINED", tmp_path / "pretrained")
    with pytest.raises(UserError, match=rf"^init={init}: .*\bthere\b"):
        read_init({"init": init})


def test_another_encoder_is_named_before_its_weights_are_looked_for(monkeypatch):
    source = captioner(MODELS["lstm"])
    monkeypatch.setattr("captioning.training.init_weights.read_model", lambda init: source)
    config = {"init": "a.ckpt", "encoder": {"name": "resnet50"}, "model": MODELS["lstm"]}
    with pytest.raises(UserError, match=r"; type encoder=resnet18 .*encoder\.features=grid$"):
        read_init(config)
