"""Read JPEG XL with Pillow; imagecodecs (the extra `jxl`) decodes the pixels.

In: a JPEG XL file, as a bare codestream or in a container. Out: a Pillow image, upright, with 8 bits per channel, and
its EXIF and XMP. An animation gives its first frame. The header is read here, because imagecodecs gives no size before
it decodes, and too large images must be refused before that.

Sources: ISO/IEC 18181-1 annex D (SizeHeader, ImageMetadata), ISO/IEC 18181-2 (the boxes of the container).
"""

import importlib.util
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile

JPEG_XL_FORMAT = "JXL"  # written like the names of Pillow's formats
CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
EDGE_BITS = (9, 13, 18, 30)  # of a width or height that is no multiple of 8


def register_jpeg_xl() -> bool:
    """Let Pillow open JPEG XL; False without imagecodecs. Does not import it yet."""
    if importlib.util.find_spec("imagecodecs") is None:
        return False
    Image.register_open(JPEG_XL_FORMAT, JpegXlFile, is_jpeg_xl)
    return True


def is_jpeg_xl(start: bytes) -> bool:
    """Whether these are the first 12 bytes, or more, of a JPEG XL file."""
    return start.startswith((CODESTREAM, CONTAINER))


class JpegXlFile(ImageFile.ImageFile):
    """A JPEG XL file whose header has been read. `load` decodes it, and rotates it upright."""

    format = JPEG_XL_FORMAT

    def _open(self) -> None:
        assert self.fp is not None
        self._content: bytes | None = self.fp.read()
        start = self._content if self._content.startswith(CODESTREAM) else b""
        for name, content in () if start else _boxes(self._content):
            if name == b"jxlc" or (name == b"jxlp" and not start):
                start = content[4 if name == b"jxlp" else 0 :]  # a partial codestream begins with its number
            elif name == b"Exif":
                offset = int.from_bytes(content[:4], "big")
                self.info["exif"] = b"Exif\0\0" + content[4 + offset :]
            elif name == b"xml ":
                self.info["xmp"] = content
        self._size = _upright_size(start)
        self._mode = "RGB"

    def load(self) -> Any:
        if self._content is not None:
            import imagecodecs

            pixels = imagecodecs.jpegxl_decode(self._content, index=0, numthreads=1)  # (H, W) or (H, W, channels)
            decoded = Image.fromarray(_to_8_bits(pixels))
            self.im, self._mode, self._size = decoded.im, decoded.mode, decoded.size
            self._content = None
        return super().load()


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:  # float16 or float32, nominally from 0 to 1
        pixels = np.rint(np.nan_to_num(pixels).clip(0, 1) * 255).astype(np.uint8)
    return pixels


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of a container, each as its name and content."""
    place = 0
    while place + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        header = 8
        if size == 1 and place + 16 <= len(content):  # a 64-bit size follows
            (size,), header = struct.unpack_from(">Q", content, place + 8), 16
        end = len(content) if size == 0 else place + size  # 0: up to the end of the file
        if end < place + header:
            return
        yield name, content[place + header : end]
        place = end


def _upright_size(codestream: bytes) -> tuple[int, int]:
    """Width and height in pixels of the upright image. Errors: `SyntaxError` if the codestream is too short."""
    if len(codestream) < 16 or not codestream.startswith(CODESTREAM):
        raise SyntaxError("a JPEG XL file without a codestream")  # Pillow then tries other formats
    bits = _Bits(codestream[2:])
    small = bits.read(1)
    height = _edge(bits, small)
    ratio = RATIOS[bits.read(3)]
    width = _edge(bits, small) if ratio is None else height * ratio[0] // ratio[1]
    all_default = bits.read(1)
    turned = not all_default and bits.read(1) and bits.read(3) + 1 >= 5  # EXIF's numbers of the orientation
    return (height, width) if turned else (width, height)


def _edge(bits: "_Bits", small: int) -> int:
    return 8 * (bits.read(5) + 1) if small else bits.read(EDGE_BITS[bits.read(2)]) + 1


class _Bits:
    """Reads bits of a codestream, the lowest bit of each byte first."""

    def __init__(self, content: bytes) -> None:
        self._rest = int.from_bytes(content[:16], "little")

    def read(self, count: int) -> int:
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value
