"""Human judgements of captions, from Flickr8k's two files, and a metric's agreement with them.

Hodosh, Young and Hockenmaier 2013 had humans judge whether captions fit images that most were not
written for. What is compared with what follows CLIPScore (Hessel et al. 2021, appendix and code).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.data.caption_formats import read_lines

try:
    from scipy.stats import kendalltau
except ImportError:  # before anything is scored
    raise UserError("Kendall's tau needs scipy; type pip install 'captioning[judge]'") from None

CAPTIONS = "Flickr8k.token.txt"


class Judged(NamedTuple):
    """Captions, the image each was judged against, its references, and the judgements.

    An image is named without its suffix.
    """

    images: list[str]
    hypotheses: list[str]
    references: list[list[str]]
    judgements: Float[np.ndarray, "caption judge"]


def read_expert(root: Path) -> Judged:
    """Read ExpertAnnotations.txt: three judgements a caption, from 1 (unrelated) to 4 (it fits).

    A caption that is also a reference of the image is left out: of 5,822 rows 5,664 stay.
    """
    return _read_judgements(root, "ExpertAnnotations.txt", slice(0, 3), keeps_references=False)


def read_crowd(root: Path) -> Judged:
    """Read CrowdFlowerAnnotations.txt: the share of humans, 0 to 1, who say that a caption fits.

    A caption that is also a reference of the image (721 of 47,830) stays, and is no reference
    for any caption of that image.
    """
    return _read_judgements(root, "CrowdFlowerAnnotations.txt", slice(0, 1), keeps_references=True)


def agreement(scores: Sequence[float] | np.ndarray, judged: Judged, variant: str) -> float:
    """Return Kendall's tau, -1 to 1, `variant` "b" or "c", of scores with each single judgement.

    Raises UserError if all scores or all judgements are equal.
    """
    repeated = np.repeat(np.asarray(scores), judged.judgements.shape[1])
    tau = kendalltau(repeated, judged.judgements.ravel(), variant=variant).statistic
    if not np.isfinite(tau):
        raise UserError("there is nothing to rank: all scores or all judgements are equal")
    return float(tau)


def _read_judgements(root: Path, name: str, columns: slice, keeps_references: bool) -> Judged:
    captions = {key: caption for _, (key, caption) in _read_cells(root, CAPTIONS, 2)}
    references: dict[str, list[str]] = defaultdict(list)
    for key, caption in captions.items():  # of a key such as IMAGE.jpg#0
        references[image_stem(key)].append(caption)
    images, hypotheses, of_images, judgements = [], [], [], []
    for where, (image, key, *cells) in _read_cells(root, name, 5):
        of_image = references[image_stem(image)]  # one list, shared by the captions of an image
        if not of_image or key not in captions:
            raise UserError(f"{where}: {CAPTIONS} has no caption of {image}, or no {key}")
        if captions[key] in of_image:
            if not keeps_references:
                continue
            of_image.remove(captions[key])
        images.append(image_stem(image))
        hypotheses.append(captions[key])
        of_images.append(of_image)
        try:
            judgements.append([float(cell) for cell in cells[columns]])
        except ValueError:
            raise UserError(f"{where}: {cells[columns]} are not numbers") from None
    if not judgements:
        raise UserError(f"{name} holds no judgement")
    return Judged(images, hypotheses, of_images, np.array(judgements))


def image_stem(name: str) -> str:
    """Return an image's name up to its first dot."""
    return name.partition(".")[0]  # the release has one image with captions of IMAGE.jpg.1


def _read_cells(root: Path, name: str, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line of a file in `root`, or its Flickr8k_text/."""
    paths = [path for path in (root / name, root / "Flickr8k_text" / name) if path.is_file()]
    if not paths:
        raise UserError(
            f"{name} is neither in {root} nor in its Flickr8k_text/; type "
            "`python -m captioning.download flickr8k DIR`, then `python -m captioning.judge DIR`"
        )
    for where, line in read_lines(paths[0]):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != columns:
            raise UserError(f"{where}: {len(cells)} columns and not {columns}: {line[:60]!r}")
        yield where, cells
