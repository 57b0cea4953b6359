"""Which jobs a command makes, and where: nothing is trained here."""

import re

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from captioning.config.compose import CONF, checked_configs
from captioning.sweeps.jobs import resume_job


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a function that makes the sweeper of a command and its jobs, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*arguments):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", list(arguments), RunMode.MULTIRUN)
        HydraConfig.instance().set_config(config)
        options = OmegaConf.to_container(config.hydra.sweeper)
        sweeper = Plugins.instance().class_name_to_class[options.pop("_target_")](**options)
        sweeper.config, sweeper.hydra_context = config, HydraContext(loader, None)
        return sweeper, sweeper.plan(OmegaConf.to_container(config.hydra.overrides.task))

    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        yield make


def folders(plan, *arguments):
    return [str(job.folder) for job in plan(*arguments)[1]]


def test_a_grid_has_a_folder_for_each_combination(plan):
    command = ["model=lstm,merge", "model.hidden_dim=256,512", "seed=1,2,3", "trainer.gpus=1"]
    grid = folders(plan, *command)
    assert len(grid) == len(set(grid)) == 12
    first = "outputs/sweeps/model+model.hidden_dim/model=lstm,model.hidden_dim=256,seed=1"
    assert grid[0] == first
    assert grid == folders(plan, *command)


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["seed=1,2", "model=merge"], "outputs/sweeps/seed/seed=1"),
        (["seed=1,2", "name=mine"], "outputs/sweeps/mine/seed=1"),
        (["seed=1,2", "experiment=demo"], "outputs/sweeps/demo/seed=1"),
        (["model.dropout=1e-2,1e-3"], "outputs/sweeps/model.dropout/model.dropout=0.01,seed=0"),
        (
            ["+trainer.profiler=simple,null"],
            "outputs/sweeps/trainer.profiler/seed=0,trainer.profiler=simple",
        ),
        (["model=lstm"], "outputs/sweeps/one/seed=0"),
        (["name=a,b"], "outputs/sweeps/name/name=a,seed=0"),
        (["seed=1,2", "hydra.sweep.dir=elsewhere"], "elsewhere/seed=1"),
        (["data=folder", "data.root=../../mine", "seed=1,2"], "outputs/sweeps/seed/seed=1"),
    ],
)
def test_a_sweep_is_named_by_its_user_or_by_what_is_swept(plan, arguments, folder):
    assert folders(plan, *arguments)[0] == folder


def test_more_seeds_are_more_jobs_of_the_same_sweep(plan):
    default = folders(plan, "model=lstm,merge")
    assert set(default) < set(folders(plan, "model=lstm,merge", "seed=0,1"))


def test_a_named_sweep_keeps_its_folders_where_a_value_is_pinned(plan):
    capacity = folders(plan, "sweep=capacity")
    assert len(capacity) == 18
    pinned = folders(plan, "sweep=capacity", "model.hidden_dim=256")
    assert len(pinned) == 6
    assert set(pinned) < set(capacity)
    assert capacity[0].startswith("outputs/sweeps/capacity/model=lstm,model.hidden_dim=128")


def test_a_swept_value_may_hold_anything(plan):
    first, second = folders(plan, "data.root='a/b c','a,b'", "data=folder")
    assert first.startswith("outputs/sweeps/data.root/data.root=_a_b_c_,seed=0-")
    assert second.startswith("outputs/sweeps/data.root/data.root=_a,b_,seed=0-")
    outside = folders(plan, "data=folder", "data.root=../../mine,..", "seed=1,2")
    assert len(outside) == 4
    assert outside[0].startswith("outputs/sweeps/data.root/data.root=.._.._mine,")


def test_jobs_get_the_sweeps_name_and_their_folder(plan):
    sweeper, jobs = plan("model=lstm,merge")
    loader = sweeper.hydra_context.config_loader
    config = loader.load_sweep_config(sweeper.config, jobs[1].overrides)
    assert config.hydra.sweep.dir == "outputs/sweeps/model"
    assert config.hydra.sweep.subdir == "model=merge,seed=0"
    assert config.name == "model"
    assert "CaptioningSweeper" in config.hydra.sweeper._target_
    assert config.model._target_.endswith("MergeDecoder")


def test_only_what_is_missing_is_run_and_a_change_stops_all(plan):
    sweeper, jobs = plan("seed=1,2,3")
    resume_job(jobs[1].folder, sweeper.compose(jobs[1]), lambda ckpt_path: None)
    assert sweeper.unfinished(jobs) == [jobs[0], jobs[2]]
    sweeper, jobs = plan("seed=1,2,3", "trainer.max_epochs=3")
    with pytest.raises(SystemExit, match=r"seed=2 .*trainer\.max_epochs: 12 → 3"):
        sweeper.unfinished(jobs)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("model=lstm,lstmm", "lstmm"),
        ("+hidden_dim=64,128", "no key hidden_dim; did you mean model.hidden_dim"),
        ("hidden_dim=64,128", "no key hidden_dim; did you mean model.hidden_dim"),
        ("hydra.sweeper.params={hidden_dim: '64,128'}", "no key hidden_dim; did you mean model."),
    ],
)
def test_a_misspelt_key_or_choice_stops_all_before_anything_is_trained(plan, command, message):
    sweeper, jobs = plan(command)
    with pytest.raises(HydraException, match=re.escape(message)):
        sweeper.unfinished(jobs)


def test_a_sweep_may_vary_what_one_of_its_choices_only_has(plan):
    command = ["model=attention,transformer", "model.heads=2", "trainer.fast_dev_run=true,false"]
    sweeper, jobs = plan(*command)
    assert len(sweeper.unfinished(jobs)) == 4
    assert sweeper.compose(jobs[0])["model"]["heads"] == 2
