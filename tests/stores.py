"""A feature store of few numbers, without files."""

from captioning.features.store import FeatureStore


class TinyStore(FeatureStore):
    """Features of records whose ids are their rows."""

    def __init__(self, features):
        self.features = features

    def get_features(self, records):
        return self.features[[int(record.image_id) for record in records]]
