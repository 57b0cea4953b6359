import gc
import weakref

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.config.compose import differences
from captioning.sweeps.jobs import is_finished, job_name, read_status, resume_job

CONFIG = {"model": {"hidden_dim": 16}, "seed": 1}


def test_a_folder_is_named_by_what_is_swept_in_any_order():
    name = "model=lstm,model.hidden_dim=16,seed=1"
    assert job_name({"seed": "1", "model.hidden_dim": "16", "model": "lstm"}) == name


settings = st.dictionaries(st.text("ab.", min_size=1), st.text(max_size=300), min_size=1)


@given(settings, settings)
def test_other_settings_have_another_folder_that_any_file_system_takes(first, second):
    names = [job_name(first), job_name(second)]
    assert (names[0] == names[1]) == (first == second)
    for name in names:
        assert name.isascii() and "/" not in name and 0 < len(name) <= 200


def test_a_finished_job_is_not_run_again(tmp_path):
    assert resume_job(tmp_path, CONFIG, lambda ckpt_path: 0.5) == 0.5
    assert is_finished(tmp_path, CONFIG)
    assert resume_job(tmp_path, CONFIG, lambda ckpt_path: pytest.fail("ran again")) == 0.5


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OSError("the disk\nis full"), "failed", "OSError: the disk is full"),
        (UserError("type trainer.gpus=0"), "failed", "type trainer.gpus=0"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt:"),
    ],
)
def test_a_job_that_ends_early_records_why_and_is_resumed(tmp_path, caplog, error, status, reason):
    def train(ckpt_path):
        assert read_status(tmp_path)["status"] == "running"
        raise error

    with pytest.raises(type(error)):
        resume_job(tmp_path, CONFIG, train)
    recorded = read_status(tmp_path)
    assert (recorded["status"], recorded["error"]) == (status, reason)
    assert (tmp_path / "traceback.txt").exists() == (status == "failed")
    assert ("Traceback" in caplog.text) == isinstance(error, OSError)
    (tmp_path / "last.ckpt").touch()
    checkpoints = []
    resume_job(tmp_path, CONFIG, checkpoints.append)
    assert checkpoints == [str(tmp_path / "last.ckpt")]
    assert not (tmp_path / "traceback.txt").exists()


def test_an_error_that_is_its_own_causes_cause_ends(tmp_path):
    def train(_):
        cause = UserError("type text_encoder=minilm")
        try:
            raise RuntimeError from cause
        except RuntimeError:
            raise cause from None  # as build() does

    with pytest.raises(UserError, match="minilm"):
        resume_job(tmp_path, CONFIG, train)


def test_a_failed_job_leaves_no_model_in_memory(tmp_path):
    """Hydra keeps the exceptions of all jobs, and they keep the frames."""
    models = []

    def train(ckpt_path):
        model = {1, 2}
        models.append(weakref.ref(model))
        raise OSError from ValueError()

    with pytest.raises(OSError) as error:
        resume_job(tmp_path, CONFIG, train)
    gc.collect()
    assert models[0]() is None
    assert error.value.__traceback__


def test_a_changed_config_is_refused_where_there_is_a_model(tmp_path):
    changed = {"model": {"hidden_dim": 32, "tied": True}, "seed": 1}
    with pytest.raises(ZeroDivisionError):
        resume_job(tmp_path, CONFIG, lambda ckpt_path: 1 / 0)
    assert not is_finished(tmp_path, changed)
    resume_job(tmp_path, CONFIG, lambda ckpt_path: None)
    message = r"hidden_dim: 16 → 32; model\.tied: absent → true.*type name=NEW.*delete that folder"
    with pytest.raises(UserError, match=message):
        resume_job(tmp_path, changed, lambda ckpt_path: None)


def test_a_job_is_trained_by_one_process_at_a_time(tmp_path):
    with FileLock(tmp_path / "lock"), pytest.raises(UserError, match="another process trains"):
        resume_job(tmp_path, CONFIG, lambda ckpt_path: pytest.fail("trained twice"))
    assert not (tmp_path / "status.json").exists()


def test_differences_name_the_keys_in_dots():
    old, new = {"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 1, "c": [2]}, "e": "x"}
    assert differences(old, new) == ["a.c: [1] → [2]", "d: null → absent", "e: absent → x"]
    assert differences(old, old) == []
