import optuna
import pytest

from captioning.sweeps.pruning import Pruning


def trial(pruner, **earlier):
    """A trial in a study where the one before it had these scores by epoch."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    before = study.ask()
    for epoch, score in earlier.items():
        before.report(score, int(epoch.removeprefix("epoch")))
    study.tell(before, 9.0)
    return study.ask()


def test_every_epoch_is_reported(fit):
    one = trial(optuna.pruners.NopPruner())
    fit(Pruning(one, "val/cider"), epochs=3)
    assert one.study.trials[1].intermediate_values == {0: 0.25, 1: 1.25, 2: 2.25}


def test_what_is_worse_than_the_others_ends(fit):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1)
    one = trial(pruner, epoch0=5.0, epoch1=5.0, epoch2=5.0)
    with pytest.raises(optuna.TrialPruned, match=r"val/cider 1\.2500 after epoch 1"):
        fit(Pruning(one, "val/cider"), epochs=3)


def test_validation_after_the_fit_is_no_epoch(fit):
    one = trial(optuna.pruners.NopPruner())
    trainer = fit(Pruning(one, "val/cider"), epochs=1)
    trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert list(one.study.trials[1].intermediate_values) == [0]
