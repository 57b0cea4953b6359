import csv

import pytest
import torch

from captioning.output.card import model_card

SCORES = {"val/loss": 2.5, "val/cider": 0.439, "val/distinct": 0.605, "train/loss": 3.0}
RUN = {
    "command": "python -m captioning.train seed=3",
    "commit": "c0ffee",
    "dirty": False,
    "started": "2026-11-25T12:00:00+00:00",
    "hardware": {"device": "an abacus"},
    "versions": {"python": "3.11"},
}


def checkpoint(data=None, **extra):
    search = {"_target_": "captioning.search.beam.beam_search", "_partial_": True, "width": 5}
    return {
        "epoch": 7,
        "state_dict": {"decoder.output.weight": torch.zeros(6, 5)},
        "captioning": {
            "vocabulary": ["<pad>", "<bos>", "<eos>", "<unk>", "a", "dog"],
            "encoder": {
                "name": "resnet50",
                "weights": "abc123",
                "features": "pooled",
                "image_size": 224,
            },
            "config": {
                "name": "lstm",
                "seed": 3,
                "monitor": "val/cider",
                "model": {"_target_": "captioning.models.lstm.LSTMDecoder"},
                "data": data
                or {"_target_": "captioning.data.readers.CaptionFolder", "root": "/secret/dogs"},
                "datamodule": {"min_count": 5},
                "callbacks": {"captions": {"search": search}},
            },
        },
        **extra,
    }


def card(kind="safetensors", run=None, choice=None, captions=None, evaluation=None, **options):
    return model_card(kind, checkpoint(**options), run, choice, captions, evaluation)


def test_scores_are_the_checkpoints_own_of_its_epoch():
    history = {6: {"val/cider": 0.9}, 7: SCORES}
    text = card(callbacks={"RunFolder": {"history": history}})
    assert "| cider | 43.9 |" in text
    assert "| loss | 2.50 |" in text
    assert "train" not in text.partition("## Scores")[2].partition("Written")[0]
    assert "beam_search width=5" in text
    assert "of 100 captions of validation pictures, 60 differ" in text
    assert "the epoch not chosen on `val`" in text
    assert "which also chose the epoch" not in text


def test_the_best_epoch_is_the_chosen_one():
    text = card(callbacks={"RunFolder": {"history": {6: {"val/cider": 0.1}, 7: SCORES}}})
    assert "the epoch chosen on `val`" in text
    assert "which also chose the epoch" in text


def test_tied_weights_count_once():
    weight = torch.zeros(6, 5)
    tied = {"decoder.embedding.weight": weight, "decoder.output.weight": weight}
    assert "30 trained" in model_card(
        "safetensors", checkpoint(state_dict=tied), None, None, None, None
    )


def test_a_score_that_was_added_is_in_the_card(added):
    history = {7: SCORES | {"val/letters": 41.5}}
    evaluation = {
        "scores": {"letters": 40.0, "words": 9.5, "cider": 0.5},
        "intervals": {"letters": [38.5, 41.0]},
        "pictures": 10,
        "split": "test",
        "search": {"_target_": "captioning.search.beam.beam_search"},
        "command": "",
        "commit": "",
    }
    text = card(callbacks={"RunFolder": {"history": history}}, evaluation=evaluation)
    assert "| letters | 41.50 |" in text
    assert "| letters | 40.00 (38.50 to 41.00) |" in text
    assert "| words | 9.50 |" in text
    assert "| cider | 50.0 |" in text


def test_what_is_not_recorded_is_said_to_be_missing():
    text = card()
    assert "No scores are in the checkpoint" in text
    assert "The command of its training is unknown" in text
    assert "No run.json lay beside the checkpoint" in text
    assert "the `test` split is not scored here" in text


def test_a_run_says_where_it_comes_from():
    text = card(run=RUN)
    for told in ("`python -m captioning.train seed=3`", "| commit | `c0ffee` |", "an abacus"):
        assert told in text


def test_an_evaluation_brings_its_command_and_intervals():
    evaluation = {
        "scores": {"cider": 0.51, "meteor": 0.2},
        "intervals": {"cider": [0.48, 0.54]},
        "pictures": 1000,
        "split": "test",
        "search": {"_target_": "captioning.search.beam.beam_search", "width": 3},
        "command": "python -m captioning.evaluate split=test",
        "commit": "c0ffee",
    }
    text = card(evaluation=evaluation)
    assert "| cider | 51.0 (48.0 to 54.0) |" in text
    assert "| meteor | 20.0 |" in text
    assert "On the 1,000 pictures of `test`" in text
    assert "`python -m captioning.evaluate split=test` at commit `c0ffee`" in text


@pytest.mark.parametrize(
    ("data", "choice", "told"),
    [
        (None, "flickr8k", "Licence: for research use only"),
        (None, "folder", "`dogs`. **Licence: not known to this program"),
        (None, None, "Licence: not known to this program"),
        ({"_target_": "captioning.data.scenes.Scenes"}, "scenes", "Licence: nobody's rights"),
    ],
)
def test_the_licence_of_the_data_is_said_or_asked_for(data, choice, told):
    text = card(choice=choice, data=data)
    assert told in " ".join(text.split())
    assert "/secret" not in text


def test_the_worst_captions_are_named(tmp_path):
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "semantic"])
        table.writerows([(f"{n}.jpg", f"caption {n}", n / 10) for n in (4, 1, 3, 2)])
    text = card(captions=tmp_path / "captions.csv")
    assert "“caption 1” of `1.jpg`; “caption 2” of `2.jpg`; “caption 3” of `3.jpg`." in text


@pytest.mark.parametrize(
    ("kind", "told"),
    [("onnx", "`[batch 224 224 3]`"), ("safetensors", "Captioner.from_pretrained")],
)
def test_it_says_how_to_use_what_is_there(kind, told):
    assert told in card(kind)


HISTORY = {"RunFolder": {"history": {7: SCORES}}}
GREEDY = {"_target_": "captioning.search.beam.greedy_search", "max_length": 20}


def evaluated_by(search):
    numbers = {"scores": {"cider": 0.51}, "intervals": {}, "pictures": 9, "split": "dev"}
    return numbers | {"command": "evaluate", "commit": "c0ffee", "search": search}


def test_the_graphs_card_gives_the_beams_scores_as_anothers():
    text = card("onnx", callbacks=HISTORY)
    assert "searches greedily, were not scored" in text
    assert "`python -m captioning.evaluate ckpt=PATH search=greedy`" in text
    assert "with `beam_search width=5`, not with this graph; x100" in text
    assert "Measured with the search of `val` above: it repeats" in text


def test_greedy_scores_are_the_graphs_own():
    text = card("onnx", callbacks=HISTORY, evaluation=evaluated_by(GREEDY))
    assert "were not scored" not in text
    assert "with `greedy_search max_length=20`, x100" in text


def test_greedy_scores_of_shorter_captions_are_not_the_graphs():
    text = card("onnx", evaluation=evaluated_by({**GREEDY, "max_length": 5}))
    assert "were not scored" in text
    assert "`greedy_search max_length=5`, not with this graph, x100" in text


def test_a_card_of_weights_says_nothing_of_a_graph():
    text = card(callbacks=HISTORY, evaluation=evaluated_by(GREEDY))
    assert "graph" not in text.partition("## Scores")[2]


def test_a_run_that_captioned_nothing_has_a_card():
    contents = checkpoint(callbacks={"RunFolder": {"history": {7: {"val/loss": 2.5}}}})
    contents["captioning"]["config"]["callbacks"] = {"captions": None}
    text = model_card("onnx", contents, None, None, None, None)
    assert "with `teacher forcing`" in text
    assert "were not scored" in text
