from types import SimpleNamespace

import pytest
from torch import nn

from captioning import UserError
from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.loaded_models import (
    LoadedModel,
    checkpoint_labels,
    find_checkpoints,
    make_ensemble,
)

STORE = SimpleNamespace(encoder={"name": "resnet18"})


def model(label, caption="a red square", store=STORE):
    vocabulary = Vocabulary.from_captions([caption])
    return LoadedModel(label, nn.Linear(1, 1), vocabulary, store, [{"path": label}])


def test_a_pattern_names_all_its_files_and_a_path_only_itself(tmp_path):
    for name in ("b", "a", "model=lstm,seed=[1]"):
        (tmp_path / f"{name}.ckpt").touch()
    assert find_checkpoints(f"{tmp_path}/?.ckpt") == [f"{tmp_path}/a.ckpt", f"{tmp_path}/b.ckpt"]
    path = f"{tmp_path}/model=lstm,seed=[1].ckpt"
    assert find_checkpoints([path]) == [path]


def test_a_pattern_finds_a_file_once_whatever_leads_there(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "best.ckpt").touch()
    (tmp_path / "latest").symlink_to("sweep")
    assert find_checkpoints(f"{tmp_path}/*/best.ckpt") == [f"{tmp_path}/sweep/best.ckpt"]
    assert find_checkpoints(f"{tmp_path}/latest/*") == [f"{tmp_path}/latest/best.ckpt"]


def test_a_missing_checkpoint_and_one_named_twice_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"ckpt=no/best\.ckpt: there is no such file"):
        find_checkpoints(["no/best.ckpt"])
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(UserError, match="twice"):
        find_checkpoints([f"{tmp_path}/a.ckpt", f"{tmp_path}/*.ckpt"])


@pytest.mark.parametrize(
    ("paths", "names", "labels"),
    [
        (["runs/lstm/2026/best.ckpt"], ["lstm"], ["lstm"]),
        ([f"x/model=lstm,seed={n}/best.ckpt" for n in (1, 2)], ["x", "x"], ["seed=1", "seed=2"]),
        (["run/best.ckpt", "run/last.ckpt"], ["x", "x"], ["best", "last"]),
        (["a/b/best.ckpt", f"{'c' * 50}/best.ckpt"], ["lstm", "merge"], ["lstm 1", "merge 2"]),
        (["a/b", "a/b/a"], ["lstm", "merge"], ["lstm 1", "merge 2"]),
    ],
)
def test_checkpoints_are_labelled_by_what_differs_or_by_name_and_number(paths, names, labels):
    assert checkpoint_labels(paths, names) == labels


def test_an_ensemble_has_the_identity_of_its_members():
    ensemble = make_ensemble([model("a"), model("b")])
    assert ensemble.identity == [{"path": "a"}, {"path": "b"}]
    assert len(ensemble.decoder.members) == 2


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([model("a")], "two checkpoints or more"),
        ([model("a"), model("b", "a blue square")], "one vocabulary, but those of a and b"),
        ([model("a"), model("b", store=SimpleNamespace())], "one encoder, but those of a and b"),
    ],
)
def test_models_that_cannot_be_an_ensemble_are_refused(models, message):
    with pytest.raises(UserError, match=message):
        make_ensemble(models)
