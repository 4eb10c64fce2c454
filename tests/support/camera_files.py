"""Files like those of cameras and phones: RAW without sensor data, JPEG 2000, JPEG XL, animations.

In: a folder. Out: one file of each kind. Of several images in a file, only the one to be read has the colour WANTED.
"""

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

WANTED, OTHER = (200, 60, 20), (20, 60, 200)  # colours of the image to read, and of all others in the file
SIZE, SMALL = (640, 480), (160, 120)
TAKEN = "2023:05:06 07:08:09"
Tag = tuple[int, int, Any]  # tag, TIFF type (2 text, 3 short, 4 long), value

# the parts of a RAW file


def jpeg(size: tuple[int, int] = SIZE, colour: tuple[int, int, int] = WANTED, **options: Any) -> bytes:
    return encode(Image.new("RGB", size, colour), "JPEG", **options)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def lossless_jpeg(width: int = 4000, height: int = 3000) -> bytes:
    """The header of the sensor data in CR2 and DNG, and some bytes of data."""
    frame = struct.pack(">BHHB", 14, height, width, 2) + bytes(6)
    return b"\xff\xd8\xff\xc3" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xda\0\x08" + bytes(6) + b"\xff\xd9"


class TiffFile:
    """A TIFF that stores directories and data one after another; `order` is `<` or `>`."""

    def __init__(self, order: str = "<", start: bytes | None = None) -> None:
        self.order = order
        self.content = bytearray(start or (b"II*\0" if order == "<" else b"MM\0*"))
        self.content += bytes(4)

    def data(self, content: bytes) -> int:
        """Append bytes; returns their offset."""
        self.content += bytes(len(self.content) % 2)
        place = len(self.content)
        self.content += content
        return place

    def directory(self, tags: Sequence[Tag], following: int = 0) -> int:
        """Append a directory; returns its offset."""
        entries = b""
        for tag, kind, value in sorted(tags):
            code = {2: "s", 3: "H", 4: "I"}[kind]
            values = value if isinstance(value, tuple) else (value,)
            body = value.encode() + b"\0" if kind == 2 else struct.pack(f"{self.order}{len(values)}{code}", *values)
            count = len(body) if kind == 2 else len(values)
            field = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack(f"{self.order}I", self.data(body))
            entries += struct.pack(f"{self.order}HHI", tag, kind, count) + field
        head = struct.pack(f"{self.order}H", len(tags))
        return self.data(head + entries + struct.pack(f"{self.order}I", following))

    def finish(self, first: int) -> bytes:
        self.content[4:8] = struct.pack(f"{self.order}I", first)
        return bytes(self.content)


def camera_tags(file: TiffFile, make: str, orientation: int = 1) -> list[Tag]:
    """Maker, model, orientation and date, as in the first directory."""
    exif = file.directory([(0x9003, 2, TAKEN)])
    return [(0x010F, 2, make), (0x0110, 2, "Model"), (0x0112, 3, orientation), (0x8769, 4, exif)]


# whole files


def thumbnail_first(make: str, order: str = "<", orientation: int = 1, dng: bool = False) -> bytes:
    """NEF, ARW, DNG, SRW and their like: a thumbnail, and below it a preview and the sensor's data."""
    file = TiffFile(order)
    preview = jpeg()
    below = (
        file.directory([(0x00FE, 4, 1), (0x0201, 4, file.data(preview)), (0x0202, 4, len(preview))]),
        file.directory([(0x00FE, 4, 0), (0x0106, 3, 32803), (0x0111, 4, file.data(lossless_jpeg()))]),
    )
    thumbnail = jpeg(SMALL, OTHER)
    tags = [(0x00FE, 4, 1), (0x0103, 3, 6), (0x0111, 4, file.data(thumbnail)), (0x0117, 4, len(thumbnail))]
    tags += [(0x0100, 4, SMALL[0]), (0x0101, 4, SMALL[1]), (0x014A, 4, below), *camera_tags(file, make, orientation)]
    tags += [(0xC612, 4, 1)] if dng else []
    return file.finish(file.directory(tags))


def cr2(orientation: int = 1) -> bytes:
    """The first directory has the preview as an old-style JPEG, the second the thumbnail, the last the sensor data."""
    file = TiffFile("<", b"II*\0")
    file.data(b"CR\x02\0" + bytes(4))
    thumbnail, preview = jpeg(SMALL, OTHER), jpeg()
    last = file.directory([(0x0103, 3, 6), (0x0111, 4, file.data(lossless_jpeg()))])
    second = file.directory([(0x0201, 4, file.data(thumbnail)), (0x0202, 4, len(thumbnail))], last)
    tags = [(0x0103, 3, 6), (0x0111, 4, file.data(preview)), (0x0117, 4, len(preview))]
    return file.finish(file.directory([*tags, *camera_tags(file, "Canon", orientation)], second))


def pef() -> bytes:
    """The first directory holds the sensor data."""
    file = TiffFile(">")
    preview = jpeg()
    second = file.directory([(0x0201, 4, file.data(preview)), (0x0202, 4, len(preview))])
    tags = [(0x0103, 3, 65535 - 1), (0x0106, 3, 32803), (0x0111, 4, file.data(bytes(999)))]
    return file.finish(file.directory([*tags, *camera_tags(file, "PENTAX")], second))


def with_own_start(start: bytes, make: str, orientation: int = 1) -> bytes:
    """ORF and RW2: a TIFF with other first bytes, and the preview among the maker's notes."""
    file = TiffFile("<", start)
    file.data(jpeg())
    return file.finish(file.directory(camera_tags(file, make, orientation)))


def raf(orientation: int = 1) -> bytes:
    """A header of Fuji, then a JPEG with the EXIF data."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "FUJIFILM"
    exif[0x8769] = {0x9003: TAKEN}
    return b"FUJIFILMCCD-RAW 0201".ljust(148, b"\0") + jpeg(exif=exif) + bytes(5000)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def cr3(orientation: int = 1) -> bytes:
    """An ISO media file with EXIF directories in Canon's boxes, and the preview as its first track."""
    first, second = TiffFile(), TiffFile()
    own = [(0x010F, 2, "Canon"), (0x0112, 3, orientation)]
    boxes = box(b"CMT1", first.finish(first.directory(own)))
    boxes += box(b"CMT2", second.finish(second.directory([(0x9003, 2, TAKEN)])))
    boxes += box(b"THMB", bytes(16) + jpeg(SMALL, OTHER))
    header = box(b"ftyp", b"crx \0\0\0\x01crx isom")
    return header + box(b"moov", box(b"uuid", bytes(16) + boxes)) + box(b"mdat", jpeg() + bytes(4000))


def jpeg_xl(pixels: np.ndarray, exif: bytes = b"") -> bytes:
    """A lossless JPEG XL file of (H, W), (H, W, channels) or (frames, H, W, channels); with EXIF, in a container."""
    codestream = imagecodecs.jpegxl_encode(pixels, lossless=True, usecontainer=False)
    if not exif or not codestream.startswith(b"\xff\x0a"):
        return codestream
    start = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    return start + box(b"Exif", bytes(4) + exif) + box(b"jxlc", codestream)


def animation(kind: str, colours: Sequence[tuple[int, int, int]], **options: Any) -> bytes:
    """Frames of these colours, each with a dark dot at its own place: equal frames would be stored as one."""
    frames = [Image.new("RGB", (48, 32), colour) for colour in colours]
    for number, frame in enumerate(frames):
        frame.putpixel((number, 0), (0, 0, 0))
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)


RAW_FILES: dict[str, Callable[[], bytes]] = {
    "a.nef": lambda: thumbnail_first("NIKON CORPORATION"),
    "b.nrw": lambda: thumbnail_first("NIKON", order=">"),
    "c.arw": lambda: thumbnail_first("SONY"),
    "d.dng": lambda: thumbnail_first("Google", dng=True),
    "e.srw": lambda: thumbnail_first("SAMSUNG"),
    "f.3fr": lambda: thumbnail_first("Hasselblad", order=">"),
    "g.cr2": cr2,
    "h.cr3": cr3,
    "i.pef": pef,
    "j.orf": lambda: with_own_start(b"IIRO", "OLYMPUS CORPORATION"),
    "k.rw2": lambda: with_own_start(b"IIU\0", "Panasonic"),
    "l.raf": raf,
}
OTHER_FILES: dict[str, Callable[[], bytes]] = {
    "m.jp2": lambda: encode(Image.new("RGB", SIZE, WANTED), "JPEG2000"),
    "n.j2k": lambda: encode(Image.new("RGB", SIZE, WANTED), "JPEG2000", no_jp2=True),
    "n.jxl": lambda: jpeg_xl(np.full((*SIZE[::-1], 3), WANTED, np.uint8)),
    "o.gif": lambda: animation("GIF", [WANTED] * 2 + [OTHER] * 2),
    "p.webp": lambda: animation("WEBP", [WANTED, OTHER, OTHER], lossless=True),
    "q.png": lambda: animation("PNG", [WANTED, OTHER, OTHER]),
    "r.avif": lambda: animation("AVIF", [WANTED, OTHER, OTHER], quality=95),
    "s.avif": lambda: encode(Image.new("RGB", SIZE, WANTED), "AVIF", quality=95),
    "t.heic": lambda: encode(Image.new("RGB", SIZE, WANTED), "HEIF"),
}
# unreadable files, each with a word of the reason
UNREADABLE_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no-preview.raf": (lambda: b"FUJIFILMCCD-RAW 0201".ljust(9000, b"\0"), "a RAW file without a preview"),
    "no-preview.cr3": (lambda: box(b"ftyp", b"crx \0\0\0\x01crx isom") + bytes(99), "a RAW file without a preview"),
    "text.nef": (lambda: b"no image at all", "not an image in a known format"),
    "cut.jp2": (lambda: encode(Image.effect_noise(SIZE, 90), "JPEG2000")[:900], "damaged image"),
}
# skipped, but counted by kind
SKIPPED_FILES = {"film.vob": "video (.vob)", "paper.pdf": "PDF (.pdf)", "layers.psd": "image of another kind (.psd)"}


def write_camera_files(folder: Path) -> None:
    """Write twenty-one readable files, four unreadable ones, and three that are skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in {**RAW_FILES, **OTHER_FILES}.items():
        (folder / name).write_bytes(make())
    for name, (make, _) in UNREADABLE_FILES.items():
        (folder / name).write_bytes(make())
    for name in SKIPPED_FILES:
        (folder / name).write_bytes(b"content")
