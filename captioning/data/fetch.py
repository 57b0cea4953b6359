"""Download a file with a checksum, and unpack a zip archive.

Both appear under their own name only when complete. By requests, as huggingface_hub's `http_get`
gives up on a busy server (503) and never on one that breaks off each time.
"""

import hashlib
import re
import shutil
import stat
import sys
import time
import zipfile
from pathlib import Path, PureWindowsPath

import requests

from captioning import UserError
from captioning.data.progress import progress_bar

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one


def fetch(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path`, going on from `path`.partial where an earlier call was cut short.

    Raises UserError if the server cannot be reached or refuses, and where the bytes are not
    those of `md5` (hexadecimal; what was downloaded is then removed).
    """
    if path.exists():
        if _md5(path) == md5:
            return
        raise UserError(f"{path} is not the file of {url}: move it away and run this again")
    partial = Path(f"{path}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _download(url, partial)
    if (actual := _md5(partial)) != md5:
        partial.unlink()
        raise UserError(
            f"{url} gave the wrong bytes (md5 {actual} instead of {md5}), so {partial} was "
            "removed: run this again, or take another mirror with url="
        )
    partial.rename(path)


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Unpack a zip archive into `folder`; of an archive with a folder of that name, only that one.

    A Mac's `__MACOSX/` is left out. Raises UserError, before anything is written, for a member
    outside `folder`, a link, or more than `limit` bytes.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            _refuse_unsafe(archive, file.infolist(), limit)
            names = [name for name in file.namelist() if not name.startswith("__MACOSX/")]
            file.extractall(partial, names)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{archive} is a broken zip ({error}): delete it, run this again"
        ) from error
    inner = partial / folder.name
    (inner if inner.is_dir() else partial).rename(folder)
    shutil.rmtree(partial, ignore_errors=True)


def short_reason(error: Exception) -> str:
    """Return in a few words why `error` was raised, the operating system's words if it has some."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return re.split(r"\. |\n| for url", str(error) or type(error).__name__)[0]


def _download(url: str, partial: Path) -> None:
    """Complete `partial`, in several attempts unless the server refuses."""
    for attempt in range(ATTEMPTS):
        try:
            return _download_rest(url, partial)
        except requests.RequestException as error:
            if attempt == ATTEMPTS - 1 or _is_final(error):
                raise UserError(
                    f"could not fetch {url} ({short_reason(error)}): run this again to go on, take "
                    f"another mirror with url=, or put the file at {partial.with_suffix('')}"
                ) from error
            pause = PAUSE * 2**attempt
            print(f"{short_reason(error)}: trying again in {pause:.0f} s", file=sys.stderr)
            time.sleep(pause)


def _download_rest(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    # Without `identity`, a server may compress: lengths and ranges would then count other bytes.
    headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and start:
            return  # nothing is missing; the checksum has the last word
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0  # the server ignores Range and sends everything
        length = response.headers.get("Content-Length")
        bar = progress_bar(
            desc=url.rpartition("/")[2],
            total=start + int(length) if length else None,
            initial=start,
            unit="B",
            unit_scale=True,
        )
        with bar, partial.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(1 << 16):
                bar.update(file.write(chunk))


def _is_final(error: requests.RequestException) -> bool:
    """Return whether trying again cannot help: a malformed URL, or a refusal."""
    if error.response is None:
        return isinstance(error, ValueError)
    code = error.response.status_code
    return 400 <= code < 500 and code not in (408, 429)  # a timeout, and too many requests


def _refuse_unsafe(archive: Path, members: list[zipfile.ZipInfo], limit: int) -> None:
    for member in members:
        path = PureWindowsPath(member.filename)  # knows / and \ and drives
        if path.anchor or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(
                f"{archive} holds {member.filename!r}, which is a link or lies outside the folder: "
                "nothing was unpacked, delete the archive"
            )
    size = sum(member.file_size for member in members)
    if size > limit:
        raise UserError(
            f"{archive} would unpack to {size:,} bytes, more than the {limit:,} expected: "
            "nothing was unpacked, delete the archive"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
