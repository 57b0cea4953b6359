"""A search, as a user starts it."""

import re
import shlex

import pytest
from postgres import PASSWORD, postgresql
from verbs import TINY, run

pytestmark = pytest.mark.slow

OPTIONS = [*(one for one in TINY if not one.startswith("model.")), "data.root=data"]
OPTIONS += ["trainer.max_epochs=1", "name=tiny"]


@pytest.fixture(scope="module")
def searched(folder):
    """A search of two trials, with its storage in PostgreSQL, behind a password."""
    with postgresql() as storage:
        arguments = [*OPTIONS, "trials=2", f"storage={storage}"]
        yield run(folder, *arguments, module="captioning.tune")


def test_a_search_prints_its_trials_and_the_best_as_a_command(searched, folder):
    assert searched.returncode == 0, searched.stderr
    assert searched.stdout.count("| complete |") == 2
    assert (folder / "outputs/tune/tiny/trials.md").read_text() in searched.stdout
    command = re.search(r"python -m captioning\.train .*", searched.stdout)[0]
    again = run(folder, *shlex.split(command)[3:], "hydra.run.dir=best")
    assert again.returncode == 0, again.stderr
    best = re.search(r"complete \| (\S+)", searched.stdout)[1]
    assert f"cider                          {best}" in again.stdout


def test_no_file_and_no_line_holds_the_storages_password(searched, folder):
    assert "searcher:***@127.0.0.1" in searched.stdout
    assert PASSWORD not in searched.stdout + searched.stderr
    files = [path for path in (folder / "outputs" / "tune").rglob("*") if path.is_file()]
    assert {"run.json", "best.ckpt", "config.yaml"} <= {path.name for path in files}
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    run_json = next(path for path in files if path.name == "run.json").read_text()
    assert "searcher:***@127.0.0.1" in run_json


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("model.hidden_dim=16", "model.hidden_dim is in the search space, and given"),
        (
            "storage=mysql+nothing://me:secret@host/x",
            "storage=mysql+nothing://me:***@host/x cannot",
        ),
    ],
)
def test_what_is_wrong_is_a_sentence(folder, option, told):
    done = run(folder, *OPTIONS, option, module="captioning.tune")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
