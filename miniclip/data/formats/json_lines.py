"""An imagefolder's `metadata.jsonl`."""

import json
from pathlib import Path

from miniclip.data.formats.columns import CAPTION_COLUMNS
from miniclip.data.formats.rows import NO_CAPTION, Row, caption_texts, numbered_lines, place_of
from miniclip.errors import MiniClipError


def read_json_lines(file: Path) -> list[Row]:
    """Imagefolder's `metadata.jsonl`: an object a line with `file_name`, `text` or `caption`, and perhaps `split`."""
    rows = []
    for number, line in numbered_lines(file):
        try:
            entry = json.loads(line)
            caption = next((entry[column] for column in CAPTION_COLUMNS if column in entry), None)
            split = str(entry.get("split") or "")
            name = str(entry.get("file_name") or "")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise MiniClipError(f"{file} line {number} is not a JSON object; fix or remove it") from error
        rows += [Row(name, text, split, place_of(file, number)) for text in caption_texts(caption) or NO_CAPTION]
    return rows
