"""Which jobs a command makes, and where: nothing is trained here."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from captioning import UserError
from captioning.config.compose import CONF, checked_configs
from captioning.sweeps.jobs import attempt


@pytest.fixture
def sweeper(tmp_path, monkeypatch):
    """Return a function that makes the sweeper of a command, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*arguments):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", list(arguments), RunMode.MULTIRUN)
        HydraConfig.instance().set_config(config)
        options = OmegaConf.to_container(config.hydra.sweeper)
        made = Plugins.instance().class_name_to_class[options.pop("_target_")](**options)
        made.config, made.hydra_context = config, HydraContext(loader, None)
        return made

    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        yield make


def folders(sweeper, *arguments):
    return [str(job.folder) for job in sweeper(*arguments).plan(list(arguments))]


def test_the_missions_command(sweeper):
    command = ["model=lstm,merge", "model.hidden_dim=256,512", "seed=1,2,3", "trainer.gpus=1"]
    found = folders(sweeper, *command)
    assert len(found) == len(set(found)) == 12
    assert (
        found[0] == "outputs/sweeps/model+model.hidden_dim/model=lstm,model.hidden_dim=256,seed=1"
    )
    assert found == folders(sweeper, *command)


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["seed=1,2", "model=merge"], "seed/seed=1"),
        (["seed=1,2", "name=mine"], "mine/seed=1"),
        (["seed=1,2", "experiment=demo"], "demo/seed=1"),
        (
            ["training.learning_rate=1e-2,1e-3"],
            "training.learning_rate/seed=0,training.learning_rate=0.01",
        ),
        (["+trainer.profiler=simple,null"], "trainer.profiler/seed=0,trainer.profiler=simple"),
        (["model=lstm"], "one/seed=0"),
        (["name=a,b"], "name/name=a,seed=0"),
        (["seed=1,2", "hydra.sweep.dir=elsewhere"], None),
    ],
)
def test_a_sweep_is_named_by_its_user_or_by_what_is_swept(sweeper, arguments, folder):
    task = [one for one in arguments if not one.startswith("hydra.")]
    found = str(sweeper(*arguments).plan(task)[0].folder)
    assert found == (f"outputs/sweeps/{folder}" if folder else "elsewhere/seed=1")


def test_more_seeds_are_more_jobs_of_the_same_sweep(sweeper):
    one = folders(sweeper, "model=lstm,merge")
    more = folders(sweeper, "model=lstm,merge", "seed=0,1")
    assert set(one) < set(more)


def test_a_named_sweep_keeps_its_names_where_a_value_is_pinned(sweeper):
    found = folders(sweeper, "sweep=capacity")
    assert len(found) == 18
    pinned = folders(sweeper, "sweep=capacity", "model.hidden_dim=256")
    assert len(pinned) == 6
    assert set(pinned) < set(found)
    assert found[0].startswith("outputs/sweeps/capacity/model=lstm,model.hidden_dim=128")


def test_what_is_swept_may_hold_anything(sweeper):
    first, second = folders(sweeper, "data.root='a/b c','a,b'", "data=folder")
    assert first.startswith("outputs/sweeps/data.root/data.root=_a_b_c_,seed=0-")
    assert second.startswith("outputs/sweeps/data.root/data.root=_a,b_,seed=0-")


def test_jobs_get_the_sweeps_name_and_their_folder(sweeper):
    made = sweeper("model=lstm,merge")
    job = made.plan(["model=lstm,merge"])[1]
    config = made.hydra_context.config_loader.load_sweep_config(made.config, job.overrides)
    assert config.hydra.sweep.dir == "outputs/sweeps/model"
    assert config.hydra.sweep.subdir == "model=merge,seed=0"
    assert config.name == "model"
    assert "CaptioningSweeper" in config.hydra.sweeper._target_
    assert config.model._target_.endswith("MergeDecoder")


def test_only_what_is_missing_is_run_and_a_change_stops_all(sweeper):
    command = ["seed=1,2,3"]
    made = sweeper(*command)
    jobs = made.plan(command)
    attempt(jobs[1].folder, made.compose(jobs[1]), lambda ckpt_path: None)
    assert made.unfinished(jobs) == [jobs[0], jobs[2]]
    changed = sweeper(*command, "trainer.max_epochs=3")
    with pytest.raises(SystemExit, match=r"trainer\.max_epochs: 12 → 3\nin 1 of 3 jobs.*seed=2"):
        changed.unfinished(changed.plan([*command, "trainer.max_epochs=3"]))


def test_a_misspelt_choice_stops_all_before_anything_is_trained(sweeper):
    made = sweeper("model=lstm,merge")
    with pytest.raises(Exception, match="lstmm"):
        made.unfinished(made.plan(["model=lstm,lstmm"]))


@pytest.mark.parametrize(
    "command",
    [
        ["+hidden_dim=64,128"],
        ["hidden_dim=64,128"],
        ["hydra.sweeper.params={hidden_dim: '64,128'}"],
    ],
)
def test_a_key_that_nothing_reads_stops_all_before_anything_is_trained(sweeper, command):
    made = sweeper(*command)
    with pytest.raises(UserError, match=r"no key hidden_dim; did you mean model\.hidden_dim"):
        made.unfinished(made.plan([one for one in command if not one.startswith("hydra.")]))


def test_a_sweep_may_vary_what_one_of_its_choices_only_has(sweeper):
    command = ["model=attention,transformer", "model.heads=2", "trainer.fast_dev_run=true,false"]
    made = sweeper(*command)
    typed = OmegaConf.to_container(made.config.hydra.overrides.task)
    jobs = made.plan(typed)
    assert len(made.unfinished(jobs)) == 4
    assert made.compose(jobs[0])["model"]["heads"] == 2


def test_a_sweep_may_read_from_another_folder(sweeper):
    command = ["data=folder", "data.root=../../mine,..", "seed=1,2"]
    assert len(sweeper(*command).plan(command)) == 4
    assert folders(sweeper, *command)[0].startswith(
        "outputs/sweeps/data.root/data.root=.._.._mine,"
    )
    command = ["data=folder", "data.root=../../mine", "seed=1,2"]
    assert folders(sweeper, *command) == [
        "outputs/sweeps/seed/seed=1",
        "outputs/sweeps/seed/seed=2",
    ]
