"""Say what is wrong with a folder of images and captions: `python -m captioning.verify FOLDER`."""

import sys
from contextlib import suppress
from dataclasses import dataclass

from captioning.config.cli import command, option
from captioning.data.caption_files import LAYOUTS
from captioning.data.readers import CaptionFolder
from captioning.data.verification import verify


@dataclass
class VerifyOptions:
    """Say what is in a data folder, and what is wrong with it; change nothing.

    python -m captioning.verify data/flickr8k
    python -m captioning.verify mine fast=true layout=csv
    """

    root: str = option("the folder, as for data.root", bare=True)
    fast: bool = option("true: do not open the images", False)
    layout: str = option(
        f"where a folder has several: {', '.join(LAYOUTS)}", "auto", choices=("auto", *LAYOUTS)
    )


@command(VerifyOptions)
def main(options: VerifyOptions) -> int:
    """Print the report; return 1 where something needs the user's hand."""
    report = verify(CaptionFolder(options.root, options.layout), not options.fast)
    with suppress(AttributeError):  # names of files may hold what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    print(report)
    needed = len(report.errors)
    print(f"\n{needed} of these need your hand (ERROR)" if needed else "\nready to train on")
    return int(needed > 0)


if __name__ == "__main__":
    sys.exit(main())
