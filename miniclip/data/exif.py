"""Read EXIF tags one by one, so that a tag with a wrong offset does not affect the others.

In: an EXIF block or a TIFF file, which have the same structure. Out: the values of single tags as integers, fractions
or bytes.
Source: CIPA DC-008 (Exif 3.0), section 4.6; TIFF 6.0, section 2.
"""

import contextlib
import io
import struct
from collections.abc import Sequence
from typing import BinaryIO

# bytes per value by TIFF type; types above 13 are BigTIFF's
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
MAX_VALUE_BYTES = 1 << 20
MAX_ENTRIES = 4096
EXIF_IFD, GPS_IFD = 0x8769, 0x8825

Directory = dict[int, tuple[int, bytes]]  # tag -> TIFF type and raw bytes


class ExifBlock:
    """The tags of one EXIF block: `tags` has those of IFD0 and the Exif IFD, `gps` those of the GPS IFD.

    If IFD0 and the Exif IFD have the same tag, that of the Exif IFD counts.
    """

    def __init__(self, stream: BinaryIO, wanted: Sequence[int]) -> None:
        self._stream, self._wanted = stream, {*wanted, EXIF_IFD, GPS_IFD}
        self.tags: Directory = {}
        self.gps: Directory = {}
        self._order = ""  # of bytes, as in the module `struct`
        with contextlib.suppress(OSError, ValueError, struct.error, OverflowError):
            header = self._read(0, 16)
            self._order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
            if not self._order:
                return
            self._is_big = struct.unpack(self._order + "H", header[2:4])[0] == 43  # BigTIFF
            code, offset = ("Q", header[8:16]) if self._is_big else ("I", header[4:8])
            self.tags = self._directory(struct.unpack(self._order + code, offset)[0])
            for pointer, into in ((EXIF_IFD, self.tags), (GPS_IFD, self.gps)):
                if start := self.integer(pointer):
                    into |= self._directory(start, everything=pointer == GPS_IFD)

    @classmethod
    def of_bytes(cls, block: bytes, wanted: Sequence[int]) -> "ExifBlock":
        """A block with or without its marker `Exif\\0\\0`."""
        return cls(io.BytesIO(block[6:] if block[:4] == b"Exif" else block), wanted)

    def integer(self, tag: int) -> int | None:
        """The first value of a tag in `tags` as an integer; None if it is missing or not a whole number."""
        kind, content = self.tags.get(tag, (0, b""))
        with contextlib.suppress(struct.error, KeyError, ZeroDivisionError):
            if kind in (5, 10):  # a fraction
                over, under = struct.unpack_from(self._order + ("II" if kind == 5 else "ii"), content)
                return int(over // under) if over % under == 0 else None
            if kind == 2:
                text = content.strip(b"\0 ")
                return int(text) if text.isdigit() else None
            return int(struct.unpack_from(self._order + INTEGERS[kind], content)[0])
        return None

    def fractions(self, directory: Directory, tag: int) -> list[float]:
        """All values of a tag whose type is a fraction; [] if it is missing or damaged."""
        kind, content = directory.get(tag, (0, b""))
        with contextlib.suppress(struct.error, ZeroDivisionError):
            pairs = struct.unpack(f"{self._order}{len(content) // 4}{'I' if kind == 5 else 'i'}", content)
            return [over / under for over, under in zip(pairs[::2], pairs[1::2], strict=True)]
        return []

    def _read(self, start: int, size: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read(size)

    def _directory(self, start: int, everything: bool = False) -> Directory:
        width, code = (20, "HHQ") if self._is_big else (12, "HHI")
        count_size = 8 if self._is_big else 2
        head = self._read(start, count_size)
        if len(head) < count_size:
            return {}
        count = min(MAX_ENTRIES, struct.unpack(self._order + ("Q" if self._is_big else "H"), head)[0])
        entries = self._read(start + count_size, width * count)
        found: Directory = {}
        for place in range(0, len(entries) - width + 1, width):  # a truncated directory ends here
            tag, kind, values = struct.unpack_from(self._order + code, entries, place)
            if (tag not in self._wanted and not everything) or kind not in SIZES or tag in found:
                continue
            inline = entries[place + struct.calcsize("=" + code) : place + width]
            size = SIZES[kind] * values
            if size > len(inline):
                if size > MAX_VALUE_BYTES:
                    continue
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    offset = struct.unpack(self._order + ("Q" if self._is_big else "I"), inline)[0]
                    if len(content := self._read(offset, size)) == size:
                        found[tag] = kind, content
            else:
                found[tag] = kind, inline[:size]
        return found
