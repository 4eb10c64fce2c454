"""Read the text in images (OCR) with PP-OCRv6 in onnxruntime, from the extra `ocr`.

In: an image's path or bytes. Out: its lines of text, or "". A detector first checks a small version of the image for
any text; most photographs end there. The models are part of the package rapidocr, so nothing is downloaded.

    pip install "miniclip[ocr]"; miniclip index ~/Pictures
"""

import importlib.util
import logging
from typing import Any

import numpy as np
from PIL import Image

from miniclip.data.images import ImageSource, open_image
from miniclip.errors import MiniClipError, UnreadableImage
from miniclip.installation import install

# Chosen on other seeds than in `benchmarks.ocr`, and on photographs. At 480 pixels, the detector misses 5 of 40
# screenshots; at 576, it misses one. With a certainty of 0.6, it finds text in 11 % of photographs; with 0.4, in 19 %.
# Lines are recognised at 960 pixels as well as at 1600
GLANCE_PX, READ_PX = 576, 960
MIN_CERTAINTY = 0.6  # mean of the detector's map inside a line, for the first check
MAX_LINE_HEIGHT = 0.5  # share of the shorter edge: larger shapes are blurred surfaces, not letters
MAX_TEXT = 20_000  # characters stored per image


def can_read_text() -> bool:
    """Whether the extra is installed. Imports nothing."""
    return importlib.util.find_spec("rapidocr") is not None


def check_text_reader() -> None:
    """`MiniClipError` if the extra is not installed."""
    if not can_read_text():
        raise MiniClipError(f"text in images needs one more package: {install('ocr')}")


class TextReader:
    """Detector and recogniser, each on one core. Thread-safe: every thread calls the same sessions."""

    def __init__(self) -> None:
        """Errors: `MiniClipError` if the extra is not installed."""
        check_text_reader()
        from rapidocr import RapidOCR

        common: dict[str, Any] = {
            "Global.log_level": "critical",
            "Global.use_cls": False,  # the classifier of upside-down lines; upright images have none
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "Det.limit_type": "max",  # never enlarged
        }
        glance = {"Global.use_rec": False, "Det.limit_side_len": GLANCE_PX, "Det.box_thresh": MIN_CERTAINTY}
        self._glance = RapidOCR(params=common | glance)
        self._read = RapidOCR(params=common | {"Det.limit_side_len": READ_PX})
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)

    def read(self, source: ImageSource) -> str:
        """The lines of text in an image, from top to bottom, with newlines between them; "" if there is none.

        Errors: `UnreadableImage`.
        """
        if not self.sees_text(_within(open_image(source, GLANCE_PX), GLANCE_PX)):
            return ""
        image = _within(open_image(source, READ_PX), 2 * READ_PX)
        lines = _run(self._read, image).txts or ()
        return "\n".join(line.strip() for line in lines if line.strip())[:MAX_TEXT]

    def sees_text(self, image: Image.Image) -> bool:
        """Whether a small RGB image seems to show a line of text."""
        boxes = _run(self._glance, image).boxes
        if boxes is None or not len(boxes):
            return False
        corners = np.asarray(boxes, dtype=np.float32)  # (N, 4, 2), clockwise
        edges = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)  # (N, 4)
        return bool((edges.min(axis=1) <= MAX_LINE_HEIGHT * min(image.size)).any())


def _within(image: Image.Image, longest_px: int) -> Image.Image:
    """The image, shrunk to this longest edge with the same proportions."""
    if max(image.size) <= longest_px:
        return image
    scale = longest_px / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _run(engine: Any, image: Image.Image) -> Any:
    try:
        return engine(np.asarray(image)[:, :, ::-1])  # BGR
    except Exception as error:  # OpenCV and Shapely raise different types for shapes that they cannot handle
        raise UnreadableImage(f"its text cannot be read ({type(error).__name__})") from error
