"""Photographs to try a captioner on: free ones that other packages carry, found without import."""

from importlib.util import find_spec
from pathlib import Path

PHOTOGRAPHS = {  # package and file: licence
    ("skimage", "data/camera.png"): "CC0, by Lav Varshney",
    ("skimage", "data/astronaut.png"): "public domain, by NASA",
    ("sklearn", "datasets/images/china.jpg"): "CC BY 2.0, by danielbuechele on Flickr",
    ("skimage", "data/chelsea.png"): "CC0, by Stéfan van der Walt",
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"): "public domain, by the U.S. Navy",
}


def find_photographs() -> list[str]:
    """Return the paths of those PHOTOGRAPHS whose package is installed."""
    paths = []
    for package, file in PHOTOGRAPHS:
        spec = find_spec(package)
        if spec and spec.origin:
            paths.append(Path(spec.origin).parent / file)
    return [str(path) for path in paths if path.is_file()]
