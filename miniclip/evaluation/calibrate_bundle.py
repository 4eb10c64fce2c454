"""Make queries with known answers from captioned images, and store a calibration with a bundle.

In: caption tables and encoders. Out: one `JudgedQueries` for each source. Its queries are words from the captions of
all sources and splits, so most of them match none of its own images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miniclip.data.caption_table import CaptionTable
from miniclip.data.splits import normalise_split
from miniclip.errors import MiniClipError
from miniclip.evaluation.evaluate import embed_split
from miniclip.files import write_json
from miniclip.inference.bundle import Bundle
from miniclip.inference.calibration_queries import judge, vocabulary
from miniclip.inference.encoders import Encoders
from miniclip.inference.judged_queries import JudgedQueries
from miniclip.inference.score_calibration import ScoreCalibration


def judge_sources(
    tables: Sequence[CaptionTable],
    splits: Sequence[str],
    encoders: Encoders,
    part: int | None = None,
    words: Sequence[str] | None = None,
) -> list[JudgedQueries]:
    """Embed these splits of every table and judge their queries.

    `part` 0 or 1 takes only the images in even or odd rows. `words` are the queries, by default all words of captions.
    """
    if words is None:
        words = sorted({word for table in tables for word in vocabulary(table.captions)})
    return [_judge(_present_splits(table, splits), words, encoders, part) for table in tables]


def _present_splits(table: CaptionTable, splits: Sequence[str]) -> CaptionTable:
    """The images of those splits that the table has; `MiniClipError` if it has none of them."""
    present = [name for name in splits if name == "all" or normalise_split(name) in table.splits]
    return table.split(*(present or splits))


def _judge(table: CaptionTable, words: Sequence[str], encoders: Encoders, part: int | None) -> JudgedQueries:
    if part is not None:
        table = table.without({row: "kept for a check" for row in range(len(table.image_paths)) if row % 2 != part})
    own = embed_split(encoders, table)
    return judge(own.table.captions, np.asarray(own.table.image_of_caption), own.image_embeds, encoders, words)


def write_calibration(bundle: Bundle, match: ScoreCalibration) -> Path:
    """Write the calibration into the manifest of a bundle, or into a separate file if it has none. Returns the file.

    Errors: `MiniClipError` if it cannot be written.
    """
    file = bundle.calibration_file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**bundle.manifest, "match": match.to_dict()} if bundle.manifest else match.to_dict())
    except OSError as error:
        raise MiniClipError(f"cannot write {file}: {error.strerror}; copy the bundle and calibrate the copy") from error
    return file
