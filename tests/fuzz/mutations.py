"""Valid inputs in, damaged ones out: bytes flipped, cut, doubled, spliced, and words put in."""

import io
import zipfile

WORDS = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"-1",
    b"0",
    b"null",
    b"NaN",
    b"1e999",
    b"9" * 40,
    b'"',
    b"[",
    b"{",
]
WORDS += [b"[" * 3000, b"\n", b"\r", b"\t", b",", b"#", b"../../x", b"/etc/passwd", b"true", b"{}"]
WORDS += [
    b"\\ud800",
    "\U0001f436\u202e\u2028".encode(),
    b"a" * 5000,
    b"${oc.env:HOME}",
    b"\x7f\xff\xff\xff",
]


def mutated(seed, others, lots):
    """Return `seed` after one to four changes; `lots` is a random.Random."""
    data = bytearray(seed)
    for _ in range(lots.choice((1, 1, 1, 2, 4))):
        at, end = sorted(lots.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + lots.choice((1, 4, 64, len(data))))
        match lots.randrange(7):
            case 0:  # flip bits
                for place in range(at, min(end, at + 4)):
                    data[place] ^= 1 << lots.randrange(8)
            case 1:  # cut the end off
                del data[at:]
            case 2:  # cut out
                del data[at:end]
            case 3:  # double
                data[at:at] = data[at:end]
            case 4:  # splice with another
                other = lots.choice(others)
                start = lots.randrange(len(other) + 1)
                data[at:end] = other[start : start + lots.choice((4, 64, 4096))]
            case 5:  # put a word in
                data[at : lots.choice((at, end))] = lots.choice(WORDS)
            case 6:  # noise
                data[at:end] = lots.randbytes(min(end - at, 64))
    return bytes(data)


def inside_zip(archive, member, change):
    """Return a zip with one member changed, all sums right: what is within is reached."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith(member) else data)
    return file.getvalue()
