import pytest
import torch
from PIL import Image

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


@pytest.mark.parametrize("resident", [False, True])
def test_training_pictures_are_also_seen_in_a_mirror(tmp_path, records, encoder, resident):
    for number, record in enumerate(records):
        Image.linear_gradient("L").rotate(80 + number).resize((40, 32)).save(record.path)
    module = data(tmp_path, records, encoder, mirror=True, resident=resident)
    plain, mirrored = (store.gather(range(len(records))) for store in module.views.stores)
    seen = set()
    loader = module.train_dataloader()
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)
        for batch in (module.on_after_batch_transfer(batch, 0) for batch in loader):
            for row, features in zip(batch.rows.tolist(), batch.features, strict=True):
                at = [torch.equal(features, view[row]) for view in (plain, mirrored)]
                assert any(at)
                seen.add(tuple(at))
    assert len(seen) == 2
    for batch in map(lambda one: module.on_after_batch_transfer(one, 0), module.val_dataloader()):
        assert torch.equal(batch.features, plain[batch.rows])
