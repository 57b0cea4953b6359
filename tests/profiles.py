"""Small ICC profiles (ICC.1:2001-04), written from scratch."""

import itertools
import struct

IDENTITY = bytes(range(256))


def fixed(*values):
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def profile(kind, space, connection, **tags):
    body, table = b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        table += name.encode() + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x", 132 + len(table) - 4 + len(body), 0x2400000, kind, space, connection,
        b"acsp",
    )  # fmt: skip
    header += fixed(0.9642, 1, 0.8249)  # D50
    return header + bytes(128 - len(header)) + table + body


def point(x, y, z):
    return b"XYZ \0\0\0\0" + fixed(x, y, z)


def curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))


def matrix_profile(red, green, blue, gamma):
    trc = curve(gamma)
    points = {"rXYZ": point(*red), "gXYZ": point(*green), "bXYZ": point(*blue)}
    return profile(b"mntr", b"RGB ", b"XYZ ", **points, rTRC=trc, gTRC=trc, bTRC=trc)


def prophoto():
    """ROMM RGB, whose (179, 70, 27) is the red of sRGB."""
    return matrix_profile((0.7977, 0.288, 0), (0.1352, 0.7119, 0), (0.0313, 0.0001, 0.8249), 1.8)


def linear_grey():
    return profile(b"mntr", b"GRAY", b"XYZ ", wtpt=point(0.9642, 1, 0.8249), kTRC=curve(1))


def grey_inks():
    """A CMYK whose cyan, magenta and yellow all make L* = 50."""
    corners = (
        (0 if black else 128 if any(colours) else 255, 128, 128)
        for *colours, black in itertools.product((0, 1), repeat=4)
    )
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += 4 * IDENTITY + bytes(itertools.chain(*corners)) + 3 * IDENTITY
    return profile(b"prtr", b"CMYK", b"Lab ", wtpt=point(0.9642, 1, 0.8249), A2B0=lut)
