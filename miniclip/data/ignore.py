"""Leave out folders and files that are not the user's images: trash, thumbnails, caches of programs.

In: patterns in the syntax of gitignore, which are built in, from `--exclude` or from `.miniclipignore` files. Out:
whether a path is left out. The deepest `.miniclipignore` with a matching pattern decides. If there is none, `--exclude`
decides, and then the built-in patterns. Within each of them, the last matching pattern decides, so `!thumbs/` brings a
folder back.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pathspec

from miniclip.errors import InvalidArgument, MiniClipError

IGNORE_FILE = ".miniclipignore"
BUILT_IN = (  # in lower case; paths are compared in lower case, because copies of such folders differ in case
    # network storage: Synology, QNAP, Western Digital, TrueNAS
    "@eadir/", r"\#recycle/", r"\#snapshot/", "@recycle/", "@__thumb/", "@tmp/", "@recently-snapshot/", ".@__thumb/",
    "synophoto_thumb*", "synofile_thumb*", "network trash folder/", "temporary items/", "recycle bin*/", "_gsdata_/",
    # systems: Windows, Linux, macOS, Android
    "$recycle.bin/", "recycler/", "recycled/", "system volume information/", "found.[0-9][0-9][0-9]/", "windows.old/",
    "lost+found/", "lost.dir/", ".trash*/", ".thumbnails/", ".cache/", "__macosx/", "android/data/", "android/obb/",
    "albumart_*.jpg", "albumartsmall.jpg", "appdata/local/", "library/caches/", "$windows.~*/", "$winreagent/",
    # cameras and photo programs: Sony, Apple Photos, iPhoto, Aperture, Lightroom, Capture One, darktable, digiKam,
    # Picasa, Nextcloud, PhotoPrism, Immich, Piwigo, Plex, web galleries
    "*.photoslibrary/resources/", "*.photoslibrary/private/", "*.photoslibrary/scopes/", "*.photoslibrary/database/",
    "*.photolibrary/thumbnails/", "*.photolibrary/previews/", "*.aplibrary/thumbnails/", "*.aplibrary/previews/",
    "*.migratedphotolibrary/thumbnails/", "*.lrdata/", "captureone/cache/", "captureone/settings/",
    ".picasaoriginals/", "appdata_*/preview/", "files_trashbin/", "files_versions/", "storage/cache/", "encoded-video/",
    "thumb/", "thumbs/", "thumbnails/", "_thumb/", "_thumbs/", "_thumbnails/", ".thumbs/", "thmbnl/",
    "ipod photo cache/", "_data/i/", "thumbcache/", "thumbnail cache/",
    # packages of programming languages
    "node_modules/", "bower_components/", "site-packages/", "dist-packages/", "__pycache__/",
)  # fmt: skip


class Ignore:
    """The patterns for a folder and all folders below it. `left_out` counts what they leave out, by name."""

    def __init__(self, root: str, exclude: Sequence[str] = ()) -> None:
        """Errors: `InvalidArgument` for a pattern that cannot be read."""
        self.root = root.rstrip("/")
        self.left_out: Counter[str] = Counter()
        # without `**/`, a pattern with a slash in its middle would match only directly below `root`
        self._built_in = pathspec.GitIgnoreSpec.from_lines(f"**/{pattern}" for pattern in BUILT_IN)
        self._exclude = _spec(exclude)
        self._folder_spec = lru_cache(maxsize=None)(self.read)

    def leaves_out(self, path: str, is_folder: bool) -> bool:
        """Whether to leave out a folder or file, whose parents are not left out. Counts it if so."""
        name = path.rstrip("/").rpartition("/")[2]
        is_out = self._decides(path.rstrip("/") + ("/" if is_folder else ""))
        if is_out:
            self.left_out[f"{name}/" if is_folder else "single files"] += 1
        return is_out

    def hides(self, path: str) -> bool:
        """Whether a file, or a folder above it, is left out."""
        parts = path[len(self.root) + 1 :].split("/")
        folders = ["/".join([self.root, *parts[:end]]) + "/" for end in range(1, len(parts))]
        return any(map(self._decides, folders)) or self._decides(path)

    def _decides(self, path: str) -> bool:
        relative = path[len(self.root) + 1 :]
        folder = path.rstrip("/").rpartition("/")[0]
        while len(folder) >= len(self.root):
            spec = self._folder_spec(folder)
            if spec is not None and (verdict := spec.check_file(path[len(folder) + 1 :]).include) is not None:
                return verdict
            if folder == self.root:
                break
            folder = folder.rpartition("/")[0]
        verdict = self._exclude.check_file(relative).include
        return bool(self._built_in.check_file(relative.lower()).include) if verdict is None else verdict

    def read(self, folder: str) -> pathspec.GitIgnoreSpec | None:
        """The patterns of one folder's `.miniclipignore`."""
        file = Path(folder, IGNORE_FILE)
        try:
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            return pathspec.GitIgnoreSpec.from_lines(lines)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise MiniClipError(f"cannot read {file}: {error.strerror}; allow it, or remove the file") from error
        except ValueError as error:
            raise MiniClipError(f"{file} has an invalid pattern ({error})") from error


def _spec(patterns: Sequence[str]) -> pathspec.GitIgnoreSpec:
    # on the command line, "#" does not start a comment
    patterns = [f"\\{pattern}" if pattern.startswith("#") else pattern for pattern in patterns]
    for pattern in patterns:
        try:
            pathspec.GitIgnoreSpec.from_lines([pattern])
        except ValueError as error:
            raise InvalidArgument("exclude", f"is not a valid gitignore pattern: {pattern}") from error
    return pathspec.GitIgnoreSpec.from_lines(patterns)
