"""The page's names for folders and images of an index.

A folder's name is relative to the deepest folder that contains all images. An image's name is the start of its content
hash, which stays valid when the index grows. Neither reveals where the images are.
"""

from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np
import pyarrow.compute as pc

from miniclip.data.paths import real_path
from miniclip.data.storage import is_uri
from miniclip.index.image_index import ImageIndex

from .errors import PageError
from .i18n import t

MAX_FOLDERS = 300  # in the filter's list
CONTENT_BYTES = 6  # of the hash: 2.8e14 different values


class GalleryPaths:
    """The folders and images of one index."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index

    @cached_property
    def _scheme(self) -> str:
        """The scheme of images in object storage, such as `s3://`; "" for files."""
        first = self._index.paths.text(0)
        return first[: first.index("://") + 3] if is_uri(first) else ""

    @cached_property
    def _parents(self) -> list[PurePosixPath]:
        """Every folder that directly contains an image. A million paths take less than a second."""
        stored = self._index.paths.stored
        if self._scheme:
            stored = pc.replace_substring_regex(stored, r"^[^:]*://|\?.*$", "")
        parents = pc.unique(pc.replace_substring_regex(stored, "/[^/]*$", "")).to_pylist()
        return [PurePosixPath(parent or "/") for parent in parents]

    @cached_property
    def root(self) -> PurePosixPath:
        """The deepest folder that contains all images."""
        first = self._parents[0]
        candidates = [first, *first.parents]
        return next(folder for folder in candidates if all(folder in (one, *one.parents) for one in self._parents))

    @cached_property
    def folders(self) -> list[str]:
        """Names of all folders below `root` that contain images, directly or in a subfolder."""
        names: set[str] = set()
        for parent in self._parents:
            below = parent.relative_to(self.root)
            names |= {str(one) for one in (below, *below.parents) if one.parts}
        return sorted(names)[:MAX_FOLDERS]

    def folder(self, name: str) -> str:
        """The folder's full path; `PageError` for a name that is not in `folders`."""
        if name not in self.folders:
            raise PageError(t("no_such_folder", name=name))
        return self._scheme + real_path(str(self.root / name))

    def name_of(self, row: int) -> str:
        """An image's path relative to `root`."""
        stored = self._index.paths.stored_text(row)
        path = stored.removeprefix(self._scheme).partition("?")[0] if self._scheme else stored
        try:
            below = str(PurePosixPath(path).relative_to(self.root))
        except ValueError:
            return self._index.paths.name(row)
        return unquote(below) if self._scheme else below

    def content_id(self, row: int) -> str:
        """The start of an image's content hash."""
        return self._index.sha256[row, :CONTENT_BYTES].tobytes().hex()

    def row_of(self, content_id: str) -> int:
        """The first row with that content; `PageError` if there is none."""
        try:
            start = bytes.fromhex(content_id)
        except ValueError:
            start = b""
        if len(start) == CONTENT_BYTES:
            rows = np.flatnonzero((self._index.sha256[:, :CONTENT_BYTES] == np.frombuffer(start, np.uint8)).all(axis=1))
            if len(rows):
                return int(rows[0])
        raise PageError(t("start_image_missing"))
