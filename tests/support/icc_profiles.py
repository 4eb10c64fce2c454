"""ICC profiles made from their definition: primaries, white point and gamma, or inks (ICC.1:2022, sections 7 to 10)."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
PRIMARIES = {  # x, y of red, green, blue and white; gamma
    "display p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290), 2.2),
    "adobe rgb": ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), (0.3127, 0.3290), 2.2),
    "prophoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585), 1.8),
}
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def matrix_profile(name: str) -> bytes:
    """A display profile of three primaries and a gamma."""
    *primaries, white, gamma = PRIMARIES[name]
    xyz = np.array([_xyz(*point) for point in primaries]).T
    from_white = np.array(_xyz(*white))
    columns = xyz * np.linalg.solve(xyz, from_white)
    scale = (BRADFORD @ np.array(D50)) / (BRADFORD @ from_white)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD @ columns
    tags = {b"rXYZ": _point(adapted[:, 0]), b"gXYZ": _point(adapted[:, 1]), b"bXYZ": _point(adapted[:, 2])}
    return _profile(b"RGB ", tags | {kind: _gamma(gamma) for kind in (b"rTRC", b"gTRC", b"bTRC")}, name)


def display_p3() -> bytes:
    return matrix_profile("display p3")


def pro_photo() -> bytes:
    return matrix_profile("prophoto")


def grey_gamma(gamma: float) -> bytes:
    return _profile(b"GRAY", {b"kTRC": _gamma(gamma)}, f"grey {gamma}")


def cmyk_inks(inks: dict[tuple[int, int, int, int], tuple[int, int, int]]) -> bytes:
    """A press profile with a table of its 16 solid overprints: (c, m, y, k), each 0 or 1, -> sRGB.

    Missing overprints are black.
    """
    ramp = bytes(range(256))
    lab = b"".join(
        _lab8(inks.get((c, m, y, k), (0, 0, 0))) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    )
    matrix = b"".join(map(_fixed, np.eye(3).ravel()))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + lab + ramp * 3
    return _profile(b"CMYK", {b"A2B0": table}, "press", kind=b"prtr", connection=b"Lab ")


def _lab8(srgb: tuple[int, int, int]) -> bytes:
    """sRGB -> Lab at D50 in 8 bits, as a table of type `mft1` stores it (ICC.1:2022, section 6.3.4)."""
    light = np.array(srgb) / 255
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])  # at D50
    ratio = (to_xyz @ light) / D50
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lab = [(116 * root[1] - 16) * 2.55, 500 * (root[0] - root[1]) + 128, 200 * (root[1] - root[2]) + 128]
    return bytes(int(min(255, max(0, round(value)))) for value in lab)


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _point(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(float(value)) for value in values)


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(
    space: bytes, tags: dict[bytes, bytes], name: str, kind: bytes = b"mntr", connection: bytes = b"XYZ "
) -> bytes:
    text = name.encode() + b"\0"
    tags = tags | {b"wtpt": _point(np.array(D50))}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    offset, directory, content = 128 + 4 + 12 * len(tags), b"", b""
    for tag, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        directory += tag + struct.pack(">II", offset + len(content), len(value))
        content += value
    size = offset + len(content)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += b"".join(map(_fixed, D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + content
