"""Read the text in the images of an index after they are embedded, so that the index can already be searched.

In: a writer, and the existing files. Out: the column `text`, committed every half minute; "" if an image shows no text.
An image is read once. An index made without the extra `ocr` gets its texts at the next update with the extra, without
embedding again.
"""

import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from miniclip.cpu import thread_count
from miniclip.data.images import ImageSource
from miniclip.data.moments import file_of
from miniclip.data.paths import printable, real_path, valid_text
from miniclip.data.prefetch import prefetch
from miniclip.data.progress import ProgressBar
from miniclip.data.storage import is_uri, read_uri
from miniclip.errors import MiniClipError, is_retryable
from miniclip.index.settings import Settings
from miniclip.index.store import Writer
from miniclip.inference.text_reader import TextReader, can_read_text

COMMIT_EVERY_S = 30.0
ReadTexts = Callable[[Writer, Iterable[str], threading.Event], int]
MAX_READERS = 4  # threads: each takes up to 0.3 GB while it reads a large image


def wants_text(settings: Settings) -> bool:
    """Whether an update reads text: if the extra is installed, and `--no-ocr` was not given."""
    return settings.ocr is not False and can_read_text()


@lru_cache(maxsize=1)
def _reader() -> TextReader:
    """The reader, loaded once, because `watch` reads repeatedly."""
    return TextReader()


def read_texts(
    writer: Writer,
    there: Iterable[str],
    stop: threading.Event,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Read the text of every existing image that was not read yet; return the number of images with text.

    `progress(done, total)` is called for every image. Reading ends early if `stop` is set; texts read so far stay.
    An image that cannot be read now is retried at the next update.
    """
    files = set(there)
    paths = sorted(path for path in writer.without_text() if file_of(path) in files)
    texts: dict[str, str] = {}
    if not paths:
        return 0
    reader, found = _reader(), 0
    last_commit = time.monotonic()

    def read(path: str) -> str:
        source: ImageSource = read_uri(path) if is_uri(path) else real_path(path)
        return valid_text(reader.read(source))

    with ProgressBar(total=len(paths), desc="reading text in images", unit="image") as bar:
        for row, text in prefetch(paths, read, ahead=64, workers=min(MAX_READERS, thread_count())):
            bar.update(1)
            if progress is not None:
                progress(row + 1, len(paths))
            if isinstance(text, MiniClipError):
                tqdm.write(f"{printable(Path(paths[row]).name)}: {text}")
                if not is_retryable(text):
                    texts[paths[row]] = ""
            else:
                texts[paths[row]] = text
                found += bool(text)
            if time.monotonic() - last_commit > COMMIT_EVERY_S:
                writer.put_texts(texts)
                texts.clear()
                last_commit = time.monotonic()
            if stop.is_set():
                break
        writer.put_texts(texts)
    return found
