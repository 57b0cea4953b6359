"""A search, as a user starts it."""

import re
import shlex
import shutil

import optuna
import pytest
from composing import compose_for_verb
from hydra import initialize_config_dir
from postgres import PASSWORD, postgresql
from verbs import TINY, run

from captioning import UserError
from captioning.config.compose import CONF, checked_configs, differences, resolve_config
from captioning.sweeps.study import open_study, store_config
from captioning.tune import shared_config, tune

pytestmark = pytest.mark.slow

OPTIONS = [option for option in TINY if not option.startswith("model.")]
OPTIONS += ["data.root=data", "trainer.max_epochs=1", "name=tiny"]


@pytest.fixture(scope="module")
def searched(folder):
    """A search of two trials, with its storage in PostgreSQL, behind a password."""
    with postgresql() as storage:
        arguments = [*OPTIONS, "trials=2", f"storage={storage}"]
        yield run(folder, *arguments, module="captioning.tune")


def test_a_search_prints_its_trials_and_the_best_as_a_command(searched, folder):
    assert searched.returncode == 0, searched.stderr
    assert len(re.findall(r"\| complete \| \S+ \| 1 \|", searched.stdout)) == 2  # epochs: 1
    assert (folder / "outputs/tune/tiny/trials.md").read_text() in searched.stdout
    command = re.search(r"python -m captioning\.train .*", searched.stdout)[0]
    again = run(folder, *shlex.split(command)[3:], "hydra.run.dir=best")
    assert again.returncode == 0, again.stderr
    best = re.search(r"complete \| (\S+)", searched.stdout)[1]
    assert f"cider                          {100 * float(best):6.1f}" in again.stdout


def test_no_file_and_no_output_holds_the_storages_password(searched, folder):
    assert "searcher:***@127.0.0.1" in searched.stdout
    assert PASSWORD not in searched.stdout + searched.stderr
    files = [path for path in (folder / "outputs" / "tune").rglob("*") if path.is_file()]
    assert {"run.json", "best.ckpt", "config.yaml"} <= {path.name for path in files}
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    run_json = next(path for path in files if path.name == "run.json").read_text()
    assert "searcher:***@127.0.0.1" in run_json


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ckpt_path=last", "the trials of a search begin at the start"),
        ("model.hidden_dim=16", "model.hidden_dim is in the search space, and given"),
        ("storage=mysql+nothing://me:secret@host/x", "nothing://me:***@host/x cannot be used"),
    ],
)
def test_what_is_wrong_is_a_sentence(folder, option, message):
    done = run(folder, *OPTIONS, option, module="captioning.tune")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


SPACE = {"model.hidden_dim": [16, 32]}


@pytest.fixture
def compose_tune(folder, monkeypatch):
    """Return a function that composes the config of a command, for calls in this process."""
    monkeypatch.chdir(folder)

    def compose(*typed):
        return compose_for_verb("tune", [*OPTIONS, *typed, "run_dir=outputs/tune/x"])

    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        compose()
        yield compose


def changed_keys(before, after):
    return [line.partition(":")[0] for line in differences(before, after)]


def test_what_decides_no_score_may_change_in_a_search(compose_tune, folder):
    shutil.copytree(folder / "data", folder / "elsewhere", dirs_exist_ok=True)
    before = shared_config(OPTIONS, SPACE)
    typed = ["data.root=elsewhere", "trainer.gpus=null", "datamodule.features_root=x"]
    typed += ["callbacks.progress.refresh_rate=1", "callbacks.gallery=null", "logger=tensorboard"]
    typed += ["name=y", "run_dir=x"]
    assert changed_keys(before, shared_config([*OPTIONS, *typed], SPACE)) == []


def test_what_decides_scores_may_not(compose_tune, folder):
    before = shared_config(OPTIONS, SPACE)
    typed = ["model=merge", "seed=1", "trainer.max_epochs=3", "encoder.image_size=64"]
    changed = changed_keys(before, shared_config([*OPTIONS, *typed, "monitor=val/bleu4"], SPACE))
    assert {"seed", "monitor", "trainer.max_epochs", "encoder.image_size"} < set(changed)
    assert "model._target_" in changed


def test_data_are_others_when_a_caption_is(compose_tune, folder):
    shutil.copytree(folder / "data", folder / "changed", dirs_exist_ok=True)
    table = folder / "changed" / "captions.csv"
    table.write_text(table.read_text().replace("a red square", "one red square"))
    before = shared_config(OPTIONS, SPACE)
    (line,) = differences(before, shared_config([*OPTIONS, "data.root=changed"], SPACE))
    assert re.fullmatch(r"records: (8 images, 16 captions) \(\w+\) → \1 \(\w+\)", line)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"hidden_dim": [1, 2]}, "did you mean model.hidden_dim?"),
        ({"model.hidden_dim": [0]}, "model.hidden_dim=0: it is 1 to 65536"),
        ({"model.dropout": {"low": 1}}, "tune.space: model.dropout"),
    ],
)
def test_a_space_that_cannot_be_is_said_before_any_trial(compose_tune, space, message):
    with pytest.raises(UserError) as error:
        shared_config(OPTIONS, space)
    assert message in str(error.value)


def test_a_full_search_says_that_it_trained_nothing(compose_tune, folder, capsys):
    typed = ["name=full", "tune=lstm_small", f"storage=sqlite:///{folder}/full.db"]
    cfg = compose_tune(*typed, "trials=1")
    options = resolve_config(cfg.tune)
    study = open_study("full", cfg.storage, "max", heartbeat=60)
    shared = shared_config([*options["overrides"], *OPTIONS], options["space"])
    store_config(study, {"space": options["space"], **shared})
    study.add_trial(optuna.trial.create_trial(value=0.5))
    tune(cfg)
    printed = capsys.readouterr().out
    assert "1 trials are finished; type trials=2 for more" in printed
    with pytest.raises(UserError, match=r"trainer\.max_epochs: 1 → 2"):
        tune(compose_tune(*typed, "trials=2", "trainer.max_epochs=2"))
