"""Several views of the same pictures, as one store for training: whole, and in a mirror.

Feature stores enter; features of rows leave, where a row names picture and view.
Next: batches.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from captioning.features.store import FeatureStore


class Views:
    """Stores of the same pictures, seen in several ways, as one: rows of the second follow."""

    def __init__(self, stores: Sequence[FeatureStore]):
        self.stores = stores
        self.images = stores[0].shape[0]

    def gather(self, rows: Int[np.ndarray, " n"]) -> torch.Tensor:
        """Return float32 features, `[n d]` or `[n r d]`; a row is `image + images * view`."""
        if len(self.stores) == 1:  # without a second copy of every batch
            return self.stores[0].gather(rows)
        views, within = np.divmod(rows, self.images)
        features = torch.empty(len(rows), *self.stores[0].shape[1:])
        for view in np.unique(views).tolist():
            mine = np.flatnonzero(views == view)
            features[mine] = self.stores[view].gather(within[mine])
        return features

    def load(self) -> Float[np.ndarray, "row *region feature"]:
        """Read all features into memory, in float16."""
        return np.concatenate([store.load() for store in self.stores])
