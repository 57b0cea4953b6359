import csv

import pytest
import torch

from captioning.output.card import model_card

SCORES = {"val/loss": 2.5, "val/cider": 0.439, "val/distinct": 0.605, "train/loss": 3.0}
BEAM = {"_target_": "captioning.search.beam.beam_search", "_partial_": True, "width": 5}
GREEDY = {"_target_": "captioning.search.beam.greedy_search", "max_length": 20}
FOLDER = {"_target_": "captioning.data.readers.CaptionFolder", "root": "/secret/dogs"}
RUN = {
    "command": "python -m captioning.train seed=3",
    "commit": "c0ffee",
    "dirty": False,
    "started": "2026-11-25T12:00:00+00:00",
    "hardware": {"device": "an abacus"},
    "versions": {"python": "3.11"},
}


def card(
    kind="safetensors",
    run=None,
    choice=None,
    captions=None,
    evaluation=None,
    dtype="float32",
    history=None,
    data=FOLDER,
    validation=BEAM,
    **extra,
):
    """Return the card of a checkpoint of epoch 7; `history` has the metrics by epoch."""
    config = {
        "name": "lstm",
        "seed": 3,
        "monitor": "val/cider",
        "model": {"_target_": "captioning.models.lstm.LSTMDecoder"},
        "data": data,
        "datamodule": {"min_count": 5},
        "callbacks": {"captions": {"search": validation}},
    }
    encoder = {"name": "resnet50", "weights": "abc", "features": "pooled", "image_size": 224}
    checkpoint = {
        "epoch": 7,
        "state_dict": {"decoder.output.weight": torch.zeros(6, 5)},
        "captioning": {
            "vocabulary": ["<pad>", "<bos>", "<eos>", "<unk>", "a", "dog"],
            "encoder": encoder,
            "config": config,
        },
    }
    checkpoint["callbacks"] = {"RunFolder": {"history": history or {}}}
    return model_card(kind, checkpoint | extra, run, choice, captions, evaluation, dtype)


def evaluated(search=BEAM, **content):
    """Return what scores.json says of the checkpoint."""
    numbers = {"scores": {"cider": 0.51}, "intervals": {}, "pictures": 1000, "split": "test"}
    origin = {"command": "python -m captioning.evaluate split=test", "commit": "c0ffee"}
    return numbers | origin | {"search": search, "rerank": None, "differences": []} | content


def test_the_head_is_yaml_that_model_hubs_read():
    assert card().startswith(
        "---\nlibrary_name: captioning\nlicense: other\npipeline_tag: image-to-text\n"
        "tags:\n- image-captioning\n---\n"
    )


def test_scores_are_the_checkpoints_own_of_its_epoch():
    text = card(history={6: {"val/cider": 0.9}, 7: SCORES})
    assert "| cider | 43.9 |" in text
    assert "| loss | 2.50 |" in text
    assert "train" not in text.partition("## Scores")[2].partition("Written")[0]
    assert "beam_search width=5" in text
    assert "it repeats itself; of its captions of validation images, 60.5 % differ" in text
    assert "the epoch not chosen on `val`" in text
    assert "which also chose the epoch" not in text


def test_the_best_epoch_is_the_chosen_one():
    text = card(history={6: {"val/cider": 0.1}, 7: SCORES})
    assert "the epoch chosen on `val`" in text
    assert "which also chose the epoch" in text


def test_tied_weights_count_once():
    weight = torch.zeros(6, 5)
    tied = {"decoder.embedding.weight": weight, "decoder.output.weight": weight}
    assert "30 trained" in card(state_dict=tied)


def test_an_added_score_is_in_the_card(added):
    scores = {"letters": 40.0, "words": 9.5, "cider": 0.5}
    evaluation = evaluated(scores=scores, intervals={"letters": [38.5, 41.0]})
    text = card(history={7: SCORES | {"val/letters": 41.5}}, evaluation=evaluation)
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


def test_the_run_has_its_command_commit_and_hardware():
    text = card(run=RUN)
    for part in ("`python -m captioning.train seed=3`", "| commit | `c0ffee` |", "an abacus"):
        assert part in text
    assert "with changes that are not in it" in card(run=RUN | {"dirty": True})


def test_an_evaluation_has_its_command_search_and_intervals():
    rerank = {"_target_": "captioning.search.rerank.NeighbourRerank"}
    intervals, scores = {"cider": [0.48, 0.54]}, {"cider": 0.51, "meteor": 0.2}
    text = card(evaluation=evaluated(scores=scores, intervals=intervals, rerank=rerank))
    assert "| cider | 51.0 (48.0 to 54.0) |" in text
    assert "| meteor | 20.0 |" in text
    assert "On the 1,000 images of `test`, with `beam_search width=5 and NeighbourRerank`" in text
    assert "`python -m captioning.evaluate split=test` at commit `c0ffee`" in text


def test_what_int8_costs_is_in_the_card():
    cider = {"difference": 0.004, "interval": [-0.002, 0.011], "p": 0.2}
    pair = {"first": "best", "second": "int8", "scores": {"cider": cider}}
    text = card(evaluation=evaluated(differences=[pair]), dtype="int8")
    assert "| best − int8 | 0.4 (-0.2 to 1.1) |" in text
    assert "| weights | int8, " in text


@pytest.mark.parametrize(
    ("data", "choice", "licence"),
    [
        (FOLDER, "flickr8k", "Licence: for research use only"),
        (FOLDER, "folder", "`dogs`. **Licence: not known to this program"),
        (FOLDER, None, "Licence: not known to this program"),
        ({"_target_": "captioning.data.scenes.Scenes"}, "scenes", "Licence: nobody's rights"),
    ],
)
def test_the_licence_of_the_data_is_stated_or_missing(data, choice, licence):
    text = card(choice=choice, data=data)
    assert licence in " ".join(text.split())
    assert "/secret" not in text


@pytest.mark.parametrize(
    ("images", "quoted"),
    [
        (1, "caption by `semantic` is no words of `` 0`.jpg ``."),
        (3, "captions by `semantic` are no words of `` 0`.jpg ``; `1 *dog*` of `1.jpg`."),
        (9, "`1 *dog*` of `1.jpg`; `2 *dog*` of `2.jpg`."),
    ],
)
def test_the_worst_captions_are_quoted_as_they_are(tmp_path, images, quoted):
    rows = [("0`.jpg", "", 0), *((f"{n}.jpg", f"{n} *dog*", n / 10) for n in range(1, images))]
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption", "semantic"], *rows[::-1]])
    assert quoted in card(captions=tmp_path / "captions.csv")


@pytest.mark.parametrize(
    ("pictures", "sentence", "row"),
    [
        (1, "On the 1 image of `test`", "| cider | 51.0 |"),
        (3, "too few images for intervals, by", "| cider | 51.0 |"),
        (10, "with 95 % intervals, by", "| cider | 51.0 (48.0 to 54.0) |"),
    ],
)
def test_few_images_have_no_intervals(pictures, sentence, row):
    text = card(evaluation=evaluated(pictures=pictures, intervals={"cider": [0.48, 0.54]}))
    assert sentence in text and row in text


def test_sentences_are_of_what_was_done():
    scenes = {"_target_": "captioning.data.scenes.Scenes"}
    text = card(history={7: {"val/distinct": 1.0}}, data=scenes, run=RUN | {"commit": None})
    assert "| commit | unknown |" in text
    assert "`train`. The vocabulary" in text  # no epoch was chosen: nothing has val/cider
    assert "repeats itself" not in text and "sex and age" not in text
    text = card(data=FOLDER | {"root": "."}, run=RUN | {"command": "train name='a|b`c'"})
    assert "A folder of its trainer's. **" in text
    assert "Trained by `` train name='a|b`c' ``." in text
    assert "| command | `` train name='a\\|b`c' `` |" in text


@pytest.mark.parametrize(
    ("kind", "usage"),
    [("onnx", "`[batch 224 224 3]`"), ("safetensors", "Captioner.from_pretrained")],
)
def test_its_use_is_that_of_the_exported_kind(kind, usage):
    assert usage in card(kind)


def test_scores_of_beam_search_are_not_those_of_the_graph():
    text = card("onnx", history={7: SCORES})
    assert "searches greedily, were not scored" in text
    assert "`python -m captioning.evaluate ckpt=PATH search=greedy`" in text
    assert "with `beam_search width=5`, not with this graph; x100" in text
    assert "Measured with the search of `val` above: it repeats" in text


@pytest.mark.parametrize("max_length", [20, 5])
def test_greedy_scores_of_captions_as_long_are_those_of_the_graph(max_length):
    search = GREEDY | {"max_length": max_length}
    text = card("onnx", history={7: SCORES}, evaluation=evaluated(search))
    is_of_graph = max_length == 20
    assert ("were not scored" not in text) == is_of_graph
    other = "" if is_of_graph else ", not with this graph"
    assert f"with `greedy_search max_length={max_length}`{other}, x100" in text


def test_a_card_of_weights_has_nothing_of_a_graph():
    text = card(history={7: SCORES}, evaluation=evaluated(GREEDY))
    assert "graph" not in text.partition("## Scores")[2]


def test_a_run_without_validation_captions_has_a_card():
    text = card("onnx", history={7: {"val/loss": 2.5}}, validation=None)
    assert "with `teacher forcing`" in text
    assert "were not scored" in text
