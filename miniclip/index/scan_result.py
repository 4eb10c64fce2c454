"""The result of a scan: images to index, files that cannot be indexed, and counts of skipped files."""

from collections import Counter
from dataclasses import dataclass, field

from miniclip.data.images import SUFFIXES
from miniclip.data.moments import VIDEO_SUFFIXES
from miniclip.data.paths import printable
from miniclip.data.video import can_read_video
from miniclip.installation import install

# kinds of files, by suffix, that are often among images but that MiniCLIP does not read, or only with an extra
KINDS = {
    "RAW": "raw",
    "video": "mp4 mov m4v avi mkv webm wmv mpg mpeg mts m2ts 3gp flv ogv vob insv lrv",
    "PDF": "pdf",
    "drawing": "svg svgz ai eps ps dxf",
    "image of another kind": "ico tga psd psb xcf exr hdr dds pcx ppm pgm pbm pnm bpg xpm emf wmf",
}
KINDS = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes.split()}


@dataclass(frozen=True)
class ImageFile:
    """One file to index. `path` is as the index stores it (`stored_path`); `state` changes with its content."""

    path: str
    bytes: int
    mtime_ns: int
    captions: tuple[str, ...] = ()

    @property
    def state(self) -> tuple[int, int]:
        return self.bytes, self.mtime_ns


@dataclass(frozen=True)
class Problem:
    """A file that cannot be indexed, and why. `bytes` and `mtime_ns` are the file's, or -1 if they are unknown.

    `retryable`: the file may not be the cause, so the next update retries it even without a change.
    """

    path: str
    reason: str
    bytes: int = -1
    mtime_ns: int = -1
    retryable: bool = False


@dataclass
class ScanResult:
    """Everything below a folder. Rows of files that cannot be read now are kept: the files may still exist."""

    files: dict[str, ImageFile] = field(default_factory=dict)  # by stored path
    problems: list[Problem] = field(default_factory=list)
    unreadable_folders: list[str] = field(default_factory=list)  # stored paths, each with a trailing slash
    unreadable_files: set[str] = field(default_factory=set)  # stored paths
    unread_videos: set[str] = field(default_factory=set)  # stored paths, if the extra `video` is not installed
    captions_unknown: bool = False  # unreadable folders: indexed images below them are kept
    root: str = ""  # names are shown relative to this folder
    left_out: Counter[str] = field(default_factory=Counter)  # folders that are not the user's, by name
    passed_over: Counter[str] = field(default_factory=Counter)  # files that MiniCLIP does not read, by kind
    notes: list[str] = field(default_factory=list)  # messages from the reader of captions

    def pass_over(self, name: str) -> None:
        """Count a file of a kind that people may expect to be indexed."""
        suffix = name.lower().rpartition(".")[2] if "." in name else ""
        if f".{suffix}" == name.lower() and name.lower() in SUFFIXES:
            self.passed_over[f"files named only {name}; give them a name:"] += 1
        elif kind := KINDS.get(suffix):
            self.passed_over[f"{kind} (.{suffix})"] += 1

    def hides(self, path: str) -> bool:
        """Whether a stored path that was not found may still be there."""
        is_known = path in self.unreadable_files or path in self.unread_videos
        return is_known or path.startswith(tuple(self.unreadable_folders))

    def remarks(self) -> list[str]:
        """One line each for excluded folders, skipped files, and captions."""
        lines = list(self.notes)
        for words, counts in (("left out", self.left_out), ("passed over", self.passed_over)):
            shown = [f"{printable(name)} {count:,}" for name, count in counts.most_common(8)]
            rest = sum(counts.values()) - sum(count for _, count in counts.most_common(8))
            lines += [f"{words}: {', '.join(shown + ([f'others {rest:,}'] if rest else []))}"] if counts else []
        videos = sum(self.passed_over[f"video ({suffix})"] for suffix in VIDEO_SUFFIXES)
        if videos and not can_read_video():
            lines.append(f"{videos:,} video{'s' if videos > 1 else ''} can be searched with: {install('video')}")
        return lines
