"""Read a dataset of the Hugging Face hub, or of its cache on this machine."""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniclip.cache import cache_folder, write_cached
from miniclip.data.formats.rows import NO_CAPTION, Row, caption_texts
from miniclip.data.images import open_image
from miniclip.errors import MiniClipError, one_line
from miniclip.installation import install


def read_hugging_face(name: str) -> list[Row]:
    """A Hugging Face dataset by its id: its `Image` column and the columns caption, captions, text, caption_0, ...

    Images that are not files yet are written to the cache as PNG files. Their names are hashes of their bytes, so that
    an image that the dataset repeats for each caption becomes one file. If the dataset has only one part, its name is
    not a split: the hub calls every such part `train`.
    Errors: `MiniClipError` if the package datasets is missing, or the dataset cannot be loaded or has no such column.
    """
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]  # an extra, and slow to import
    except ImportError as error:
        raise MiniClipError(f"hf:{name} needs the package datasets: {install('datasets')}") from error
    try:
        parts = datasets.load_dataset(name)
    except Exception as error:  # the hub, the network and the data set's files raise different types
        raise MiniClipError(f"cannot load hf:{name} ({one_line(error)}); check the name and the network") from error
    rows = []
    for part_name, part in parts.items():
        image = next((c for c, feature in part.features.items() if isinstance(feature, datasets.Image)), None)
        texts = [c for c in part.features if re.fullmatch(r"(caption|text|sentence)s?(_?\d+)?", c, re.IGNORECASE)]
        if image is None or not texts:
            raise MiniClipError(f"hf:{name} has no image or no caption column, only {', '.join(part.features)}")
        for number, entry in enumerate(part.cast_column(image, datasets.Image(decode=False))):
            where = f"{part_name} row {number}"
            path, problem = _image_file(entry[image] or {})
            split = str(entry.get("split") or (part_name if len(parts) > 1 else ""))
            row = Row(path.name if path else where, None, split, where, path, problem)
            captions = [caption for column in texts for caption in caption_texts(entry[column])]
            rows += [row._replace(caption=caption) for caption in captions or NO_CAPTION]
    return rows


def _image_file(image: Mapping[str, Any]) -> tuple[Path | None, str]:
    """An undecoded image of a dataset -> its file and "", or None and the reason."""
    content, path = image.get("bytes"), image.get("path")
    if not content:
        return (Path(path), "") if path and Path(path).is_file() else (None, "no such file")
    file = cache_folder() / "datasets" / f"{hashlib.sha256(content).hexdigest()}.png"
    if not file.exists():
        png = io.BytesIO()
        try:
            open_image(content).save(png, "PNG")
        except MiniClipError as error:
            return None, str(error)
        write_cached(file, png.getvalue())
    return file, ""
