"""Small real videos, made with PyAV: scenes of plain colours, with metadata, turned, cut off."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

RED, GREEN, BLUE, BLACK = (200, 30, 30), (30, 160, 40), (40, 60, 200), (0, 0, 0)
SIZE, RATE = (96, 64), 5
CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx",
    ".avi": "mpeg4",
    ".mpg": "mpeg2video",
}
TURNED_RIGHT = (0, 1, -1, 0)  # a, b, c, d of the display matrix: a phone that was held upright


def write_video(
    path: Path,
    scenes: Sequence[tuple[tuple[int, int, int], float]] = ((RED, 3), (GREEN, 3), (BLUE, 3)),
    size: tuple[int, int] = SIZE,
    metadata: dict[str, str] | None = None,
    key_frame_s: float = 1.0,
    options: dict[str, str] | None = None,
    pixel_ratio: Fraction | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Scenes of (colour, seconds). The top left corner is white, except in black scenes."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(CODECS[path.suffix.lower()], rate=RATE if path.suffix != ".mpg" else 25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        rate = int(stream.codec_context.framerate)
        stream.codec_context.gop_size = max(1, round(key_frame_s * rate))
        stream.codec_context.max_b_frames = 0
        stream.options = codec_options or {}
        if pixel_ratio is not None:
            stream.codec_context.sample_aspect_ratio = pixel_ratio
        stream.time_base = Fraction(1, rate)
        pts = 0
        for colour, seconds in scenes:
            pixels = np.full((size[1], size[0], 3), colour, dtype=np.uint8)
            pixels[: size[1] // 4, : size[0] // 4] = 255 if colour != BLACK else 0
            for _ in range(round(seconds * rate)):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = pts, Fraction(1, rate)
                container.mux(stream.encode(frame))
                pts += 1
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A video container with only an audio stream."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_right(path: Path) -> Path:
    """Set the display matrix of an MP4 to a clockwise quarter turn, as phones do (ISO 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: four bytes of flags, 36 bytes before the matrix
    a, b, c, d = (value << 16 for value in TURNED_RIGHT)
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def claim_hours(path: Path, hours: int) -> Path:
    """Set the duration in a WebM's header (Matroska, element Duration, in milliseconds)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    struct.pack_into(">d", content, place, hours * 3_600_000.0)
    path.write_bytes(content)
    return path


def cut_off(path: Path, share: float) -> Path:
    """Keep only the start of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


def without_frames(path: Path) -> Path:
    """A video that ends after its header."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        container.start_encoding()
    return path
