"""Read the JSON of Andrej Karpathy's splits: images with their sentences and splits."""

import json
from pathlib import Path, PurePosixPath

from miniclip.data.formats.rows import NO_CAPTION, FileStart, Row, read_text
from miniclip.errors import MiniClipError


def is_karpathy(start: FileStart) -> bool:
    return start.file.name.startswith("dataset_") or ('"images"' in start.head and '"sentences"' in start.head)


def read_karpathy(file: Path) -> list[Row]:
    """Karpathy's JSON: `images`, each with `filename`, `split`, `sentences[].raw` and optionally `filepath`."""
    rows = []
    try:
        for number, image in enumerate(json.loads(read_text(file))["images"]):
            name = str(PurePosixPath(image.get("filepath") or "", image["filename"]))
            captions = [str(sentence["raw"]) for sentence in image["sentences"]]
            where = f"{file.name} image {number}"
            rows += [Row(name, caption, str(image["split"]), where) for caption in captions or NO_CAPTION]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MiniClipError(
            f"{file} is not in Karpathy's form, images with filename, split and sentences[].raw ({error!r})"
        ) from error
    return rows
