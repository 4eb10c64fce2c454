"""Read `metadata.jsonl`, the caption file of a Hugging Face imagefolder."""

import json
from pathlib import Path

from miniclip.data.formats.columns import CAPTION_COLUMNS
from miniclip.data.formats.rows import NO_CAPTION, FileStart, Row, caption_texts, numbered_lines, place_of
from miniclip.errors import MiniClipError


def is_json_lines(start: FileStart) -> bool:
    return '"file_name"' in start.first_line and not key_problem(start)


def key_problem(start: FileStart) -> str:
    """The keys that the first object lacks, in words; "" if it lacks none."""
    try:
        keys = list(json.loads(start.first_line))
    except (ValueError, TypeError, RecursionError):
        return ""
    wanted = {"file_name": ("file_name",), "caption": CAPTION_COLUMNS}
    lacking = [" or ".join(names) for names in wanted.values() if not set(names) & set(map(str, keys))]
    return f"lacks the key {' and '.join(lacking)}; its keys are: {', '.join(map(str, keys))}" if lacking else ""


def read_json_lines(file: Path) -> list[Row]:
    """Imagefolder's `metadata.jsonl`: an object per line with `file_name`, `text` or `caption`, optionally `split`."""
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
