"""Human judgements of captions, from Flickr8k's two files, and a metric's agreement with them.

Hodosh, Young and Hockenmaier 2013 had humans judge whether captions fit images that most were not
written for. What is compared with what follows CLIPScore (Hessel et al. 2021, appendix and code).
"""

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
EXPERT = "ExpertAnnotations.txt"
CROWD = "CrowdFlowerAnnotations.txt"


class Judged(NamedTuple):
    """Captions, the references of the image each was judged against, and its judgements.

    Captions of one image share one list of references.
    """

    hypotheses: list[str]
    references: list[list[str]]
    judgements: Float[np.ndarray, "caption judge"]


def read_expert(root: Path) -> Judged:
    """Read ExpertAnnotations.txt: three judgements a caption, from 1 (unrelated) to 4 (it fits).

    A caption that is also a reference of the image is left out: of 5,822 rows 5,664 stay.
    """
    return _read_judgements(root, EXPERT, slice(0, 3), (1, 4), keeps_references=False)


def read_crowd(root: Path) -> Judged:
    """Read CrowdFlowerAnnotations.txt: the share of humans, 0 to 1, who say that a caption fits.

    A caption that is also a reference of the image (721 of 47,830) stays, and is no reference
    for any caption of that image.
    """
    return _read_judgements(root, CROWD, slice(0, 1), (0, 1), keeps_references=True)


def agreement(scores: Sequence[float] | np.ndarray, judged: Judged, variant: str) -> float:
    """Return Kendall's tau, -1 to 1, `variant` "b" or "c", of scores with each single judgement.

    Raises UserError where all scores or all judgements are equal.
    """
    repeated = np.repeat(np.asarray(scores), judged.judgements.shape[1])
    tau = kendalltau(repeated, judged.judgements.ravel(), variant=variant).statistic
    if not np.isfinite(tau):
        raise UserError("there is nothing to rank: all scores or all judgements are equal")
    return float(tau)


def find_file(root: Path, name: str) -> Path:
    """Return the path of a file of the release, in `root` or in the Flickr8k_text/ below.

    Raises UserError, with what the file is and where it comes from, where it is in neither.
    """
    for path in (root / name, root / "Flickr8k_text" / name):
        if path.is_file():
            return path
    raise UserError(
        f"{name} is neither in {root} nor in its Flickr8k_text/: Flickr8k's captions ({CAPTIONS}) "
        f"and human judgements of them ({EXPERT}, {CROWD}) come together in Flickr8k_text.zip; "
        "type `python -m captioning.download flickr8k DIR`, then `python -m captioning.judge DIR`"
    )


def _read_judgements(
    root: Path, name: str, columns: slice, scale: tuple[int, int], keeps_references: bool
) -> Judged:
    captions = {key: caption for _, (key, caption) in _read_cells(find_file(root, CAPTIONS), 2)}
    references: dict[str, list[str]] = {}
    for key, caption in captions.items():  # of a key such as IMAGE.jpg#0
        references.setdefault(_image_id(key), []).append(caption)
    path = find_file(root, name)
    judged = []
    for where, (image, key, *cells) in _read_cells(path, 5):
        of_image = references.get(_image_id(image))
        if of_image is None or key not in captions:
            missing = image if of_image is None else key
            raise UserError(f"{where}: {CAPTIONS} has no caption of {missing}; is it cut short?")
        try:
            judgements = [float(cell) for cell in cells[columns]]
        except ValueError:
            judgements = [np.nan]
        if not all(scale[0] <= judgement <= scale[1] for judgement in judgements):
            raise UserError(f"{where}: {cells[columns]} is not from {scale[0]} to {scale[1]}")
        if captions[key] in of_image:
            if not keeps_references:
                continue
            of_image.remove(captions[key])  # for the other captions of the image too
        judged.append((captions[key], of_image, judgements))
    if not judged:
        raise UserError(f"{path} holds no judgement")
    hypotheses, of_images, judgements = zip(*judged, strict=True)
    return Judged([*hypotheses], [*of_images], np.array(judgements))


def _image_id(name: str) -> str:
    return name.partition(".")[0]  # the release has one image with captions of IMAGE.jpg.1


def _read_cells(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    for where, line in read_lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != columns:
            raise UserError(f"{where}: {len(cells)} columns and not {columns}: {line[:60]!r}")
        yield where, cells
