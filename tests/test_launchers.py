"""The launchers of the extras, for real: joblib's workers, submitit's queue, a Ray cluster."""

import json
import os
import subprocess
import sys

import pytest
from verbs import TINY, run

from captioning.config.hydra_arguments import LAUNCHERS, check_flags
from captioning.sweeps.gpu_slots import take_slot

SWEEP = [*TINY, "trainer=debug", "data.root=data", "seed=1,2"]


def launch(folder, launcher, *options):
    options = [f"launcher={launcher}", f"hydra.sweep.dir={launcher}", *options]
    done = run(folder, *SWEEP, *options, "--multirun")
    assert done.returncode == 0, done.stderr
    runs = [json.loads(path.read_text()) for path in (folder / launcher).rglob("run.json")]
    assert {run["seed"]: run["status"] for run in runs} == {1: "finished", 2: "finished"}
    return runs


@pytest.mark.slow
def test_joblib_divides_the_threads_of_the_machine(folder, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runs = launch(folder, "joblib", "hydra.launcher.n_jobs=2")
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [run["hardware"]["torch_threads"] for run in runs] == [share, share]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "options"),
    [("submitit_local", []), ("ray", ["+hydra.launcher.ray.init.num_cpus=2"])],
)
def test_a_launcher_runs_the_jobs(folder, launcher, options):
    launch(folder, launcher, *options)


@pytest.mark.slow
def test_ray_tasks_divide_an_encoding(folder):
    options = [option for option in SWEEP if option.startswith(("data=", "data.", "encoder"))]
    options += ["features_root=by-ray", "per_shard=2", "worker=1,2"]
    options += ["launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "--multirun"]
    done = run(folder, *options, module="captioning.encode")
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "by-ray").rglob("features-*.npy"))) == 4


def test_joblib_without_a_number_of_jobs_is_refused():
    with pytest.raises(SystemExit, match=r"hydra\.launcher\.n_jobs=N"):
        check_flags(["-m", "seed=1,2", "launcher=joblib"])


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_missing_plugin_is_a_sentence_that_names_the_extra(launcher, monkeypatch):
    check_flags([f"launcher={launcher}", "hydra.launcher.n_jobs=2"])
    monkeypatch.setattr("captioning.config.hydra_arguments.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=rf"captioning\[{LAUNCHERS[launcher]}\]"):
        check_flags(["-m", f"hydra/launcher={launcher}"])


TAKE_SLOT = """
import os, sys
from captioning.sweeps.gpu_slots import take_slot
print(take_slot(2, sys.argv[1]), os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_each_process_has_a_gpu_that_no_other_living_one_has(tmp_path):
    def start():
        return subprocess.Popen(
            [sys.executable, "-c", TAKE_SLOT, "a sweep"],
            env=dict(os.environ, CUDA_VISIBLE_DEVICES="3,5", TMPDIR=str(tmp_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with start() as second:
        with start() as first:
            slots = [first.stdout.readline(), second.stdout.readline()]
            assert sorted(slots) == ["0 3\n", "1 5\n"]
            first.kill()
        with start() as third:
            assert third.stdout.readline() == slots[0]
            third.communicate()
        second.communicate()


def test_a_process_keeps_its_slot(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    take_slot.cache_clear()
    assert take_slot(3, "sweep") == take_slot(3, "sweep") == 0
    take_slot.cache_clear()
