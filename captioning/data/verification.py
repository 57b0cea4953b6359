"""Check a folder of images and captions, and report all that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from captioning import UserError
from captioning.data.image_list import LEFT_OUT
from captioning.data.progress import progress_bar
from captioning.data.readers import ERRORS, NOTES, CaptionFolder, Findings
from captioning.data.records import SPLITS, Record
from captioning.data.tokenizer import tokenize

FEW = "images in the train or val split, which need two each"
UNREADABLE = "images that cannot be decoded"
LEAKED = "sets of equal image files across splits"
REPEATED = "sets of equal image files within a split"
ADVICE = ERRORS | {  # the kinds that need the user's hand
    FEW: "of four or more, name some in a column split, or try another data.split_seed",
    UNREADABLE: "replace them, or leave them out with data.skip_unreadable=true",
    LEAKED: "scores would count what was trained on; keep each in one split",
}
KINDS = (*ADVICE, *NOTES, REPEATED, *LEFT_OUT)
QUANTILES = {"shortest": 0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "longest": 1}


class Report(NamedTuple):
    """What is in a folder, and what is wrong with it; `str()` is the text to print."""

    root: str
    counts: dict[str | None, tuple[int, int]]  # images and captions by split; None: in no split
    words: list[int]  # the sorted lengths of the captions
    findings: Findings

    @property
    def errors(self) -> list[str]:
        """The kinds of findings that need the user's hand."""
        return [kind for kind in ADVICE if self.findings.get(kind)]

    def __str__(self) -> str:
        lines = [self.root, "", f"{'split':8}{'images':>8}{'captions':>10}"]
        for split, (images, captions) in self.counts.items():
            lines.append(f"{split or 'none':8}{images:8,}{captions:10,}")
        if self.words:
            last = len(self.words) - 1
            quantiles = (f"{name} {self.words[int(q * last)]}" for name, q in QUANTILES.items())
            lines += ["", f"words in a caption: {', '.join(quantiles)}"]
        lines.append("")
        for kind in KINDS:
            if kind not in self.findings:
                continue
            examples = self.findings[kind]
            mark = "ok" if not examples else "ERROR" if kind in ADVICE else "note"
            advice = f": {ADVICE[kind]}" if mark == "ERROR" else ""
            lines.append(f"{mark:6}{len(examples):7,}  {kind}{advice}")
            lines += [f"{'':15}{line}" for line in examples[:5] + ["…"] * (len(examples) > 5)]
        if UNREADABLE not in self.findings:
            lines.append("the images were not opened: broken and equal ones are not looked for")
        return "\n".join(lines)


def verify(folder: CaptionFolder, images: bool = True) -> Report:
    """Report all that is wrong with a folder; `images` decodes every image, to be sure.

    Raises UserError if the folder is in no known layout or a caption file is malformed.
    """
    records, findings = folder.read()
    counts = {}
    for split in (*SPLITS, None):
        captions = [len(record.captions) for record in records if record.split == split]
        counts[split] = len(captions), sum(captions)
    findings[FEW] = [
        f"{split}: {counts[split][0]} of {len(records):,} images"
        for split in ("train", "val")
        if counts[split][0] < 2
    ]
    if images:
        findings |= check_images([record for record in records if record.split])
    words = sorted(len(tokenize(caption)) for record in records for caption in record.captions)
    return Report(str(folder.root), counts, words, findings)


def check_images(records: Sequence[Record]) -> Findings:
    """Decode the image of every record; find the broken ones and those with the same bytes."""
    findings: Findings = {UNREADABLE: [], LEAKED: [], REPEATED: []}
    by_digest: dict[str, list[Record]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(_decode, [record.path for record in records])
        bar = progress_bar(results, "decoding", len(records), unit=" images", leave=False)
        for record, (digest, reason) in zip(records, bar, strict=True):
            if reason:
                findings[UNREADABLE].append(reason)
            else:
                by_digest.setdefault(digest, []).append(record)
    for equal in by_digest.values():
        if len(equal) > 1:
            names = ", ".join(f"{record.image_id} ({record.split})" for record in equal)
            is_leak = len({record.split for record in equal}) > 1
            findings[LEAKED if is_leak else REPEATED].append(names)
    return findings


def _decode(path: str) -> tuple[str, str]:
    """Return a digest of the file, and why training and captioning cannot read it or ""."""
    from captioning.data.image_files import load_image  # not above: NumPy and Pillow are heavy

    try:
        load_image(path)
    except UserError as error:
        return "", str(error)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), ""
