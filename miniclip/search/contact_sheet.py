"""A contact sheet of search results, as one image.

In: the query and hits. Out: a PNG with the query on top and the images in rows, each with its score and, if there is
one, its probability.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from miniclip.data.images import open_image
from miniclip.errors import MiniClipError
from miniclip.files import replace_atomically
from miniclip.index.image_index import ImageIndex
from miniclip.search.searcher import Hit

TILE_PX, GAP_PX, TITLE_PX, LABEL_PX, COLUMNS = 144, 10, 34, 18, 5
INK, GREY, PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)


def draw_contact_sheet(file: Path, question: str, hits: Sequence[Hit], index: ImageIndex) -> None:
    """Draw `hits` of `index`, best first, five in a row, into `file`.

    Errors: `MiniClipError` if the file exists, or cannot be written. The place of a missing image stays empty.
    """
    if file.exists():
        raise MiniClipError(f"{file} already exists; choose another --sheet, or delete it")
    columns = min(COLUMNS, max(1, len(hits)))
    rows = -(-len(hits) // columns)
    step = TILE_PX + GAP_PX, TILE_PX + LABEL_PX + GAP_PX
    sheet = Image.new("RGB", (GAP_PX + COLUMNS * step[0], TITLE_PX + rows * step[1] + GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, 8), question, fill=INK, font=ImageFont.load_default(18))
    for number, hit in enumerate(hits):
        left, top = GAP_PX + number % columns * step[0], TITLE_PX + number // columns * step[1]
        likely = "" if hit.probability is None else f"  {hit.probability:.0%}"
        try:
            tile = open_image(index.source(hit.row), TILE_PX)
            sheet.paste(ImageOps.fit(tile, (TILE_PX, TILE_PX)), (left, top))
        except MiniClipError:
            likely = "  (gone)"
        draw.text((left, top + TILE_PX + 2), f"{hit.score:.2f}{likely}", fill=GREY, font=ImageFont.load_default(12))
    replace_atomically(file, lambda partial: sheet.save(partial, "png", optimize=True))
