"""The retrieval figure of a run: good and bad results of the finished model on the validation split.

In: the run's images, captions and their embeddings. Out: `retrieval.png`, with captions and the images they find, and
images and the captions they find. Rows are spread evenly over the split, not selected. A correct result has a green
frame or a green tick. If it is not among the first results, its rank is split.
"""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from miniclip.data.images import open_image
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import SplitEmbeds
from miniclip.files import replace_atomically

SHEET_FILE = "retrieval.png"
ROWS, IMAGES, CAPTIONS = 6, 5, 5  # rows of each half; images found for a caption; captions found for an image
TILE_PX, GAP_PX, FRAME_PX, TEXT_PX, LINE_PX, TICK_PX = 150, 12, 5, 360, 23, 22
WIDTH_PX = TEXT_PX + IMAGES * (TILE_PX + GAP_PX) + 2 * GAP_PX
INK, GREY, GREEN, PAPER = (25, 25, 25), (115, 115, 115), (0, 140, 60), (255, 255, 255)


def draw_sheet(folder: Path, split: SplitEmbeds) -> Path:
    """Draw `folder/retrieval.png` and return that path.

    Errors: `MiniClipError` if an image no longer exists, or the sheet cannot be written.
    """
    texts, images = _evenly(len(split.table.captions)), _evenly(len(split.table.image_paths))
    title_px = 2 * LINE_PX + GAP_PX
    height_px = 2 * title_px + (len(texts) + len(images)) * (TILE_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (WIDTH_PX, height_px), PAPER)
    top = _title(sheet, 0, "Captions and the images they find")
    for row in texts:
        _caption_row(sheet, top, split, int(row))
        top += TILE_PX + GAP_PX
    top = _title(sheet, top, "Images and the captions they find")
    for row in images:
        _image_row(sheet, top, split, int(row))
        top += TILE_PX + GAP_PX
    replace_atomically(folder / SHEET_FILE, lambda path: sheet.save(path, "png"))
    return folder / SHEET_FILE


def _caption_row(sheet: Image.Image, top: int, split: SplitEmbeds, row: int) -> None:
    similarity = split.image_embeds @ split.text_embeds[row]  # (N_images,)
    order = np.argsort(-similarity, kind="stable")
    right = int(split.table.image_of_caption[row])
    for place, found in enumerate(order[:IMAGES]):
        left = TEXT_PX + GAP_PX + place * (TILE_PX + GAP_PX)
        _tile(sheet, left, top, split.table.image_paths[found], framed=found == right)
    lines = _lines(split.table.captions[row], TEXT_PX - GAP_PX, most=4)
    for number, line in enumerate(lines):
        _write(sheet, (GAP_PX, top + number * LINE_PX), line)
    rank = int(np.flatnonzero(order == right)[0]) + 1
    note = f"correct one: rank {rank}" + ("" if rank <= IMAGES else f" of {len(order):,}")
    _write(sheet, (GAP_PX, top + len(lines) * LINE_PX), note, GREEN if rank <= IMAGES else GREY)


def _image_row(sheet: Image.Image, top: int, split: SplitEmbeds, row: int) -> None:
    similarity = split.text_embeds @ split.image_embeds[row]  # (N_texts,)
    order = np.argsort(-similarity, kind="stable")
    right = split.table.image_of_caption[order] == row
    _tile(sheet, GAP_PX, top, split.table.image_paths[row], framed=False)
    left = TILE_PX + 3 * GAP_PX
    for place, found in enumerate(order[:CAPTIONS]):
        line = top + place * LINE_PX
        (caption,) = _lines(split.table.captions[found], WIDTH_PX - left - TICK_PX - GAP_PX, most=1)
        _write(sheet, (left + TICK_PX, line), caption, GREEN if right[place] else INK)
        if right[place]:
            _write(sheet, (left, line), "✓", GREEN)
    if right.any() and not right[:CAPTIONS].any():
        note = f"first correct one: rank {int(np.argmax(right)) + 1} of {len(order):,}"
        _write(sheet, (left + TICK_PX, top + CAPTIONS * LINE_PX), note, GREY)


def _tile(sheet: Image.Image, left: int, top: int, path: Path, framed: bool) -> None:
    """The whole image, centred in a square, with a green frame if it is the correct one."""
    try:
        image = open_image(path, TILE_PX)
    except MiniClipError as error:
        raise MiniClipError(f"{path}: {error}") from error
    scale = (TILE_PX - 2 * FRAME_PX) / max(image.size)  # ImageOps.contain would reduce a very thin image to nothing
    picture = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
    if framed:
        ImageDraw.Draw(sheet).rectangle((left, top, left + TILE_PX - 1, top + TILE_PX - 1), GREEN)
        inner = (left + FRAME_PX, top + FRAME_PX, left + TILE_PX - 1 - FRAME_PX, top + TILE_PX - 1 - FRAME_PX)
        ImageDraw.Draw(sheet).rectangle(inner, PAPER)
    sheet.paste(picture, (left + (TILE_PX - picture.width) // 2, top + (TILE_PX - picture.height) // 2))


def _title(sheet: Image.Image, top: int, words: str) -> int:
    _write(sheet, (GAP_PX, top + GAP_PX), words, font=_font(22))
    return top + 2 * LINE_PX + GAP_PX


def _write(
    sheet: Image.Image,
    place: tuple[int, int],
    words: str,
    colour: tuple[int, int, int] = INK,
    font: ImageFont.FreeTypeFont | None = None,
) -> None:
    ImageDraw.Draw(sheet).text(place, words, fill=colour, font=font or _font(16))


def _lines(words: str, width_px: int, most: int) -> list[str]:
    """Wrap words to about this width, estimated from the mean width of their letters; keep at most this many lines."""
    letters = 0.9 * width_px * len(words) / max(1.0, _font(16).getlength(words))
    return textwrap.wrap(words, max(2, int(letters)), max_lines=most, placeholder=" …") or [""]


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of matplotlib: it is the same on every machine and has the letters of most alphabets."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size_px)


def _evenly(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(ROWS, count), dtype=int))
