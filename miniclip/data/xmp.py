"""XMP packets of an image: find them in a file, and read the values of single properties.

In: an opened Pillow image and its EXIF blocks. Out: texts, and values by namespace and name. Packets are searched as
text instead of parsed as XML, so that a damaged packet still gives its undamaged values. Source: ISO 16684-1.
"""

import contextlib
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from PIL import Image

from miniclip.data.exif import ExifBlock

TIFF_XMP = 700
EXIF_NS, XMP_NS = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/xap/1.0/"
PHOTOSHOP_NS, TIFF_NS = "http://ns.adobe.com/photoshop/1.0/", "http://ns.adobe.com/tiff/1.0/"
USUAL_PREFIXES = {EXIF_NS: "exif", XMP_NS: "xmp|xap", PHOTOSHOP_NS: "photoshop", TIFF_NS: "tiff"}
MAX_TEXT_BYTES = 4 << 20


def raw_profile(image: Image.Image, name: str) -> bytes:
    """Decode a profile that ImageMagick or exiftool stored in a PNG's text: a name, a length, hexadecimal digits."""
    text = image.info.get(f"Raw profile type {name}")
    if not isinstance(text, str) or len(text) > 2 * MAX_TEXT_BYTES:
        return b""
    digits = "".join(text.split("\n")[3:]) if text.startswith("\n") else "".join(text.split("\n")[2:])
    with contextlib.suppress(ValueError):
        return bytes.fromhex(digits)
    return b""


def xmp_texts(image: Image.Image, blocks: list[ExifBlock]) -> Iterator[str]:
    """Every XMP packet of an image as text."""
    packets: list[Any] = [image.info.get("xmp"), image.info.get("XML:com.adobe.xmp")]
    packets += [block.tags[TIFF_XMP][1] for block in blocks if TIFF_XMP in block.tags]
    packets += [raw_profile(image, "xmp")]
    app1 = raw_profile(image, "APP1")
    packets += [app1] if app1.startswith(b"http") else []
    for packet in packets:
        if isinstance(packet, tuple):
            packet = packet[0] if packet else b""
        if isinstance(packet, bytes):  # without its zero bytes, ASCII in UTF-16 is ASCII
            packet = packet[:MAX_TEXT_BYTES].replace(b"\0", b"").decode("utf-8", "replace")
        if isinstance(packet, str) and packet:
            yield packet


def xmp_values(texts: list[str], namespace: str, name: str) -> Iterator[str]:
    """The values of a property, written as an attribute or as an element, with any prefix for its namespace."""
    for text in texts:
        declared = re.findall(rf"xmlns:([\w.\-]+)\s*=\s*[\"']{re.escape(namespace)}[\"']", text)
        prefixes = "|".join(map(re.escape, declared)) or USUAL_PREFIXES[namespace]
        for quoted, double, element in re.findall(
            rf"\b(?:{prefixes}):{name}\s*=\s*(?:'([^'<]*)'|\"([^\"<]*)\")"
            rf"|<(?:{prefixes}):{name}(?:\s[^>]*)?>\s*([^<]*?)\s*</",
            text,
        ):
            yield unescape(quoted or double or element)
