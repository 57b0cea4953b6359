import pytest
import torch

from captioning.features.datamodule import CaptionDataModule
from captioning.features.encoder import Encoder


class Source:
    """Records that are already there."""

    skip_unreadable = False

    def __init__(self, records):
        self._records = records

    def prepare(self):
        pass

    def records(self):
        return self._records


def data(tmp_path, records, encoder, **options):
    module = CaptionDataModule(
        Source(records), encoder, str(tmp_path / "features"), batch_size=6, min_count=1, **options
    )
    module.prepare_data()
    return module


def batches(module):
    return [module.on_after_batch_transfer(batch, 0) for batch in module.train_dataloader()]


def test_resident_features_are_those_of_the_store(tmp_path, records, encoder):
    resident = batches(data(tmp_path, records, encoder, resident=True))
    gathered = batches(data(tmp_path, records, encoder))
    assert len(resident) == len(gathered) == 2
    for one, other in zip(resident, gathered, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(one, other, strict=True))


@pytest.mark.parametrize("features", ["pooled", "grid"])
def test_captions_of_a_picture_come_together_where_it_is_costly(tmp_path, records, features):
    encoder = Encoder("resnet18", weights=None, image_size=64, features=features)
    made = batches(data(tmp_path, records, encoder))
    assert sorted(len(batch.tokens) for batch in made) == [6, 6]
    seen = sum(len(batch.features) for batch in made)
    assert seen == 4 if features == "grid" else 4 < seen <= 12
