"""Records: what every reader returns and everything after it starts from.

Files on disk enter through a reader; one `Record` an image leaves. Next: vocabulary.py.
"""

from typing import NamedTuple

SPLITS = ("train", "val", "test")


class Record(NamedTuple):
    """One image and what people wrote about it.

    `image_id` is unique in a data set: what the table first calls the file, its name or its path;
    `split` is one of `SPLITS`, or None where the image belongs to none.
    """

    image_id: str
    path: str
    captions: tuple[str, ...]
    split: str | None
