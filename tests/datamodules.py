"""A datamodule of given records, encoded by a given encoder."""

from types import SimpleNamespace

from captioning.features.datamodule import CaptionDataModule


def make_data(records, encoder, root, **options):
    """Return it prepared: six captions a batch, every word in the vocabulary."""
    source = SimpleNamespace(skip_unreadable=False, prepare=lambda: None, records=lambda: records)
    options = {"batch_size": 6, "min_count": 1} | options
    data = CaptionDataModule(source, encoder, str(root), **options)
    data.prepare_data()
    return data
