"""The verb `verify`: a folder of pictures and captions enters, what is wrong with it is printed."""

import argparse
import sys
from contextlib import suppress

from captioning import UserError
from captioning.data.caption_files import LAYOUTS
from captioning.data.readers import CaptionFolder
from captioning.data.verification import verify


def main(argv: list[str] | None = None) -> int:
    """Run the verb; the exit code is 1 where something needs the user's hand."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.verify",
        description="Say what is in a data folder, and what is wrong with it; change nothing.",
    )
    parser.add_argument("root", metavar="ROOT", help="the folder, as for data.root")
    parser.add_argument("--fast", action="store_true", help="do not open the pictures")
    parser.add_argument(
        "--layout", choices=("auto", *LAYOUTS), default="auto", help="where a folder has several"
    )
    arguments = parser.parse_args(argv)
    try:
        report = verify(CaptionFolder(arguments.root, arguments.layout), not arguments.fast)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    with suppress(AttributeError):  # names of files may hold what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    print(report)
    needed = len(report.errors)
    print(f"\n{needed} of these need your hand (ERROR)" if needed else "\nready to train on")
    return int(needed > 0)


if __name__ == "__main__":
    sys.exit(main())
