"""Damage valid inputs: flip, cut, double and splice bytes, and insert troublesome words."""

import io
import zipfile

WORDS = b'|\0|\xff\xfe|-1|0|null|NaN|1e999|"|[|{|\n|\r|\t|,|#|../../x|/etc/passwd|true|{}'.split(
    b"|"
)
WORDS += [b"[" * 3000, b"9" * 40, b"a" * 5000, b"\\ud800", b"${oc.env:HOME}", b"\x7f\xff\xff\xff"]
WORDS += ["\U0001f436\u202e\u2028".encode()]


def mutated(seed, others, rng):
    """Return `seed` after one to four changes; `rng` is a random.Random."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        end = min(end, start + rng.choice((1, 4, 64, len(data))))
        match rng.randrange(7):
            case 0:  # flip bits
                for position in range(start, min(end, start + 4)):
                    data[position] ^= 1 << rng.randrange(8)
            case 1:  # cut the end off
                del data[start:]
            case 2:  # cut out
                del data[start:end]
            case 3:  # double
                data[start:start] = data[start:end]
            case 4:  # splice with another
                other = rng.choice(others)
                first = rng.randrange(len(other) + 1)
                data[start:end] = other[first : first + rng.choice((4, 64, 4096))]
            case 5:  # insert a word, or replace by it
                data[start : rng.choice((start, end))] = rng.choice(WORDS)
            case 6:  # noise
                data[start:end] = rng.randbytes(min(end - start, 64))
    return bytes(data)


def inside_zip(archive, member, change):
    """Return a zip with one member changed and all checksums right, so that it is reached."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith(member) else data)
    return file.getvalue()
