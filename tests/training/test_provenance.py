import json
import subprocess

import torch

from captioning.training.provenance import git_state, provenance


def test_git_state_is_the_commit_and_whether_the_tree_differs(tmp_path):
    def git(*arguments):
        user = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *user, *arguments], check=True)

    assert git_state(tmp_path) == (None, None)
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    assert git_state(tmp_path) == (None, None)
    git("add", "file")
    git("commit", "-qm", "first")
    commit, dirty = git_state(tmp_path)
    assert len(commit) == 40 and dirty is False
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == (commit, True)


def test_provenance_is_plain_and_names_the_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    described = provenance(torch.device("cpu"))
    assert json.loads(json.dumps(described)) == described
    assert described["seed"] == 7
    assert set(described["versions"]) > {"python", "torch", "transformers"}
    assert described["hardware"]["device"]
