"""Human judgements: Flickr8k's two files of them in, how far a metric agrees with them out.

Hodosh, Young and Hockenmaier 2013 asked people whether captions fit pictures that most were not
written for. What is compared with what follows CLIPScore (Hessel et al. 2021, appendix and code).
Next: judge.py prints the agreement of every metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.data.layouts import lines

try:
    from scipy.stats import kendalltau
except ImportError:  # told here, before anything is scored
    raise UserError("Kendall's tau needs scipy; type pip install 'captioning[judge]'") from None

CAPTIONS = "Flickr8k.token.txt"
EXPERT = "ExpertAnnotations.txt"
CROWD = "CrowdFlowerAnnotations.txt"


class Judged(NamedTuple):
    """Captions, the references of the picture each was judged against, and its judgements.

    Captions of one picture share one list of references.
    """

    hypotheses: list[str]
    references: list[list[str]]
    judgements: Float[np.ndarray, "caption judge"]


def read_expert(root: Path) -> Judged:
    """Read ExpertAnnotations.txt: three judgements a caption, from 1 (unrelated) to 4 (it fits).

    A caption that is also a reference of the picture is left out: of 5,822 rows 5,664 stay. Raises
    UserError as `find` does, and for a line that does not fit.
    """
    return _read(root, EXPERT, slice(0, 3), (1, 4), own=False)


def read_crowd(root: Path) -> Judged:
    """Read CrowdFlowerAnnotations.txt: the share of people, 0 to 1, who say that a caption fits.

    A caption that is also a reference of the picture (721 of 47,830) stays, and is no reference
    for any caption of that picture. Raises UserError as `read_expert` does.
    """
    return _read(root, CROWD, slice(0, 1), (0, 1), own=True)


def agreement(scores: Sequence[float], judged: Judged, variant: str) -> float:
    """Return Kendall's tau-`variant` ("b" or "c") of a metric's scores with all judgements.

    From -1 to 1; each judgement is a pair of its own. Raises UserError where all scores or all
    judgements are equal.
    """
    repeated = np.repeat(np.asarray(scores), judged.judgements.shape[1])
    tau = kendalltau(repeated, judged.judgements.ravel(), variant=variant).statistic
    if not np.isfinite(tau):
        raise UserError("there is nothing to rank: all scores or all judgements are equal")
    return float(tau)


def find(root: Path, name: str) -> Path:
    """Return where a file of the release is: in `root`, or in the Flickr8k_text/ below.

    Raises UserError, with what the file is and where it comes from, where it is in neither.
    """
    for path in (root / name, root / "Flickr8k_text" / name):
        if path.is_file():
            return path
    raise UserError(
        f"{name} is neither in {root} nor in its Flickr8k_text/: Flickr8k's captions ({CAPTIONS}) "
        f"and what people judged of them ({EXPERT}, {CROWD}) come together in Flickr8k_text.zip; "
        "type `python -m captioning.download flickr8k DIR`, then `python -m captioning.judge DIR`"
    )


def _read(root: Path, name: str, columns: slice, scale: tuple[int, int], own: bool) -> Judged:
    captions, references = _captions(root)
    hypotheses, targets, judgements = [], [], []
    for where, (image, key, *cells) in _rows(find(root, name), 5):
        of_image = references.get(_stem(image))
        if of_image is None or key not in captions:
            missing = image if of_image is None else key
            raise UserError(f"{where}: {CAPTIONS} has no caption of {missing}; is it cut short?")
        try:
            numbers = [float(cell) for cell in cells[columns]]
        except ValueError:
            numbers = []
        if not numbers or not all(scale[0] <= one <= scale[1] for one in numbers):
            raise UserError(f"{where}: {cells[columns]} is not from {scale[0]} to {scale[1]}")
        if captions[key] in of_image:
            if not own:
                continue
            of_image.remove(captions[key])  # for the other captions of the picture too
            if not of_image:
                raise UserError(f"{where}: {image} has no reference left that is not judged")
        hypotheses.append(captions[key])
        targets.append(of_image)
        judgements.append(numbers)
    if not hypotheses:
        raise UserError(f"{find(root, name)} holds no judgement")
    return Judged(hypotheses, targets, np.array(judgements))


def _captions(root: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the captions by their id, `IMAGE.jpg#K`, and those of each image."""
    captions = {key: caption for _, (key, caption) in _rows(find(root, CAPTIONS), 2)}
    references: dict[str, list[str]] = {}
    for key, caption in captions.items():
        references.setdefault(_stem(key), []).append(caption)
    return captions, references


def _stem(name: str) -> str:
    return name.partition(".")[0]  # the release has one image with captions of IMAGE.jpg.1


def _rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    for where, line in lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if any(cells):
            if len(cells) != columns:
                raise UserError(f"{where}: {len(cells)} columns and not {columns}: {line[:60]!r}")
            yield where, cells
