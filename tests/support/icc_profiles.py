"""ICC profiles made from their definition: primaries, white point and gamma (ICC.1:2022, sections 7 to 10)."""

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


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _point(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(float(value)) for value in values)


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(space: bytes, tags: dict[bytes, bytes], name: str) -> bytes:
    text = name.encode() + b"\0"
    tags = tags | {b"wtpt": _point(np.array(D50))}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    offset, directory, content = 128 + 4 + 12 * len(tags), b"", b""
    for kind, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        directory += kind + struct.pack(">II", offset + len(content), len(value))
        content += value
    size = offset + len(content)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += b"".join(map(_fixed, D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + content
