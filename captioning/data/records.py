"""The record of an image, which every reader returns."""

from typing import NamedTuple

SPLITS = ("train", "val", "test")


class Record(NamedTuple):
    """An image and its human captions.

    `image_id` is unique in a data set: the first name that the caption files give the image.
    `split` is one of `SPLITS`, or None for an image that belongs to none.
    """

    image_id: str
    path: str
    captions: tuple[str, ...]
    split: str | None
