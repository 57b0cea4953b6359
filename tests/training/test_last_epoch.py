import pytorch_lightning as pl

from captioning.training.last_epoch import LastEpoch


class Validated(pl.Callback):
    def __init__(self):
        self.epochs = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.epochs.append(trainer.current_epoch)


def test_the_last_epoch_is_validated_though_it_is_not_due(fit):
    validated = Validated()
    fit(LastEpoch(), validated, epochs=5, check_val_every_n_epoch=3)
    assert validated.epochs == [2, 4]
