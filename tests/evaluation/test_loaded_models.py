from types import SimpleNamespace

import pytest
from torch import nn

from captioning import UserError
from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.loaded_models import LoadedModel, ensemble, find_checkpoints, labels

STORE = SimpleNamespace(encoder={"name": "resnet18"})


def entrant(label, caption="a red square", store=STORE):
    vocabulary = Vocabulary.from_captions([caption])
    return LoadedModel(label, nn.Linear(1, 1), vocabulary, store, [{"path": label}])


def test_a_pattern_names_all_its_files(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.ckpt").touch()
    assert find_checkpoints(f"{tmp_path}/*.ckpt") == [f"{tmp_path}/a.ckpt", f"{tmp_path}/b.ckpt"]


def test_a_path_is_taken_as_it_is(tmp_path):
    path = tmp_path / "model=lstm,seed=[1].ckpt"
    path.touch()
    assert find_checkpoints([str(path)]) == [str(path)]


def test_a_path_that_names_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"ckpt=no/best\.ckpt: there is no such file"):
        find_checkpoints(["no/best.ckpt"])


def test_a_checkpoint_is_named_once(tmp_path):
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(UserError, match="twice"):
        find_checkpoints([f"{tmp_path}/a.ckpt", f"{tmp_path}/*.ckpt"])


def test_one_run_is_called_by_its_name():
    assert labels(["runs/lstm/2026/best.ckpt"], ["lstm"]) == ["lstm"]


def test_runs_of_a_sweep_are_called_by_what_differs():
    paths = [f"sweeps/x/model=lstm,seed={seed}/best.ckpt" for seed in (1, 2)]
    assert labels(paths, ["x", "x"]) == ["seed=1", "seed=2"]


def test_checkpoints_of_a_run_are_called_by_their_files():
    assert labels(["run/best.ckpt", "run/last.ckpt"], ["x", "x"]) == ["best", "last"]


@pytest.mark.parametrize("paths", [["a/b/best.ckpt", f"{'c' * 50}/best.ckpt"], ["a/b", "a/b/a"]])
def test_what_differs_in_much_or_nothing_is_called_by_name_and_number(paths):
    assert labels(paths, ["lstm", "merge"]) == ["lstm 1", "merge 2"]


def test_an_ensemble_says_who_is_in_it():
    together = ensemble([entrant("a"), entrant("b")])
    assert together.identity == [{"path": "a"}, {"path": "b"}]
    assert len(together.decoder.members) == 2


@pytest.mark.parametrize(
    ("entrants", "told"),
    [
        ([entrant("a")], "two checkpoints or more"),
        ([entrant("a"), entrant("b", "a blue square")], "one vocabulary, but a has"),
        ([entrant("a"), entrant("b", store=SimpleNamespace())], "one encoder, but a was"),
    ],
)
def test_what_cannot_be_an_ensemble_is_said(entrants, told):
    with pytest.raises(UserError, match=told):
        ensemble(entrants)
