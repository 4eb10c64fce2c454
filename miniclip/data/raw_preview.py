"""The JPEG preview inside a RAW file, which MiniCLIP indexes and shows.

In: a RAW file's path or bytes. Out: its largest JPEG, and the EXIF blocks beside it. Manufacturers' structures are not
parsed: a JPEG is found by its first bytes, and its header gives its size. Sensor data are not read. In some formats
they are lossless JPEG streams, which are skipped.

Sources: TIFF 6.0 section 2, TIFF/EP (ISO 12234-2), DNG 1.7, ITU-T T.81 annex B (JPEG markers).
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from miniclip.data.exif import ExifBlock

RAW_FORMAT = "RAW"  # written like the names of Pillow's formats
RAW_SUFFIXES = (
    *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"),
    *(".x3f", ".3fr", ".iiq", ".rwl", ".erf", ".kdc", ".mef", ".mos", ".mrw", ".dcr", ".gpr"),
)
MAX_READ_BYTES = 256 << 20  # even larger files have their preview near the start
START_OF_JPEG, END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
SHOWN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline and progressive
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless and rarer ones
START_OF_SCAN = 0xDA
MAX_CANDIDATES, MAX_SEGMENTS, MIN_EDGE_PX = 10_000, 200, 120
# first bytes of manufacturers' formats; for a TIFF, its first directory decides
STARTS = (b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
TIFF_STARTS, CR3_START = (b"II*\0", b"MM\0*"), b"ftypcrx "  # the last after four bytes of length
SUBFILE, COMPRESSION, PHOTOMETRIC, MAKE, DNG_VERSION = 0x00FE, 0x0103, 0x0106, 0x010F, 0xC612
SENSOR = (32803, 34892)  # a colour filter array, linear raw
OLD_JPEG = 6  # the compression in the first directory of CR2; other modern TIFF files use 7
CR3_EXIF, CR3_EXIF_WITHIN = (b"CMT1", b"CMT2"), 1 << 20  # boxes with IFD0 and the Exif IFD, near the start of the file


def raw_preview(source: str | Path | bytes) -> bytes | None:
    """The largest JPEG of a RAW file; None for other files, and if there is no JPEG inside. Errors: `OSError`."""
    with open_source(source) as file:
        return _largest_jpeg(_read(file, MAX_READ_BYTES)) if _is_raw(file) else None


def raw_exif(source: str | Path | bytes, wanted: Sequence[int]) -> Iterator[ExifBlock]:
    """The EXIF blocks beside the JPEG of a RAW file, with the tags `wanted`. Errors: `OSError`."""
    with open_source(source) as file:
        start = _read(file, CR3_EXIF_WITHIN)
        if start[:2] in (b"II", b"MM"):
            yield ExifBlock(file, wanted)
    for name in CR3_EXIF if start[4:12] == CR3_START else ():
        place = start.find(name)
        if place >= 4:
            length = int.from_bytes(start[place - 4 : place]) - 8
            yield ExifBlock(io.BytesIO(start[place + 4 : place + 4 + max(0, length)]), wanted)


def is_raw_start(start: bytes) -> bool:
    """Whether these first 12 bytes of a file are those of a RAW format that is not based on TIFF."""
    return start.startswith(tuple(known[:12] for known in STARTS)) or start[4:12] == CR3_START


def open_source(source: str | Path | bytes) -> BinaryIO:
    """A stream of the bytes of an image file, from its path or its bytes. Errors: `OSError`."""
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _read(file: BinaryIO, most: int) -> bytes:
    file.seek(0)
    return file.read(most)


def _is_raw(file: BinaryIO) -> bool:
    start = _read(file, 12)
    if not start.startswith(TIFF_STARTS):
        return is_raw_start(start)
    directory = ExifBlock(file, (SUBFILE, COMPRESSION, PHOTOMETRIC, MAKE, DNG_VERSION))
    if DNG_VERSION in directory.tags:
        return True
    is_small = bool((directory.integer(SUBFILE) or 0) & 1)
    is_sensor = directory.integer(PHOTOMETRIC) in SENSOR
    return MAKE in directory.tags and (is_small or is_sensor or directory.integer(COMPRESSION) == OLD_JPEG)


def _largest_jpeg(content: bytes) -> bytes | None:
    best, largest = None, 0
    place = content.find(START_OF_JPEG)
    for _ in range(MAX_CANDIDATES):
        if place < 0:
            break
        pixels, end = _measure(content, place)
        if pixels > largest:
            best, largest = slice(place, end), pixels
        place = content.find(START_OF_JPEG, end)
    return content[best] if best else None


def _measure(content: bytes, start: int) -> tuple[int, int]:
    """The number of pixels of the JPEG at `start`, 0 if it cannot be shown, and the position to search from next."""
    pixels, place = 0, start + 2
    for _ in range(MAX_SEGMENTS):
        head = content[place : place + 10]
        if len(head) < 10 or head[0] != 0xFF:
            break
        marker, length = head[1], int.from_bytes(head[2:4])
        if marker in OTHER_FRAMES:
            break
        if marker in SHOWN_FRAMES:
            height, width = int.from_bytes(head[5:7]), int.from_bytes(head[7:9])
            pixels = width * height if head[4] == 8 and min(width, height) >= MIN_EDGE_PX else 0
        if marker == START_OF_SCAN:  # coded data contain no END_OF_JPEG
            end = content.find(END_OF_JPEG, place)
            return pixels, end + 2 if end >= 0 else len(content)
        place += 2 + length
    return 0, start + len(START_OF_JPEG)
