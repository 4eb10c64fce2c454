"""Where the page keeps the index of a folder.

In: the argument of `--images`, and encoders. Out: an index folder `index/NAME-HASH`, made or brought up to date.
"""

import hashlib
import re
from pathlib import Path

from miniclip.data.paths import printable
from miniclip.index.indexer import update_index
from miniclip.index.scan import absolute
from miniclip.index.store import INDEX_FORMAT
from miniclip.inference.encoders import OnnxEncoders

INDEXES = Path("index")


def index_folder(images: str, fingerprint: str) -> Path:
    """`index/NAME-HASH`. The hash separates folders of one name, bundles, and index formats."""
    place = absolute(images)
    name = re.sub(r"[^\w.-]+", "-", Path(place).stem or "pictures").strip("-.") or "pictures"
    digest = hashlib.sha256(f"{place}\n{fingerprint}\n{INDEX_FORMAT}".encode("utf-8", "surrogateescape")).hexdigest()
    return INDEXES / f"{name}-{digest[:8]}"


def index_images(images: str, encoders: OnnxEncoders) -> Path:
    """Make or update the index and print what happens; unchanged images keep their embedding."""
    folder = index_folder(images, encoders.bundle.fingerprint)
    known = (folder / "index.json").exists()
    print(encoders.running_on)
    print(
        f"{'looking for changes in' if known else 'indexing the images of'} {printable(images)} (index: {folder})",
        flush=True,
    )
    print(update_index(images, encoders, folder), flush=True)
    return folder
