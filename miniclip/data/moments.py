"""Paths of moments in videos: `clips/party.mp4#t=12.5` is the frame at 12.5 seconds of `clips/party.mp4`.

In: paths as an index has them. Out: the file, the second, and both as people write them. Only a path whose file has a
suffix of `VIDEO_SUFFIXES` names a moment, so `photo#t=1.jpg` is an ordinary file.
Source: W3C Media Fragments URI 1.0, section 4.2.1 (normal play time in seconds).
"""

import os
import re

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv"),
    *(".mpg", ".mpeg", ".mts", ".m2ts", ".flv", ".ogv"),
)
VIDEO_FORMAT = "VIDEO"  # as Pillow's names of formats
MARK = "#t="
MAX_FRAGMENT = 16  # characters: `#t=`, nine digits, a point and milliseconds
_FRAGMENT = re.compile(r"#t=(\d{1,9}(?:\.\d{1,3})?)", re.ASCII)


def is_video(path: str) -> bool:
    """Whether a file is named like a video."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def moment(file: str, second: float) -> str:
    """The path of the frame at that second, precise to a millisecond."""
    return f"{file}{MARK}{f'{second:.3f}'.rstrip('0').rstrip('.')}"


def file_of(path: str) -> str:
    """The file of a path: that of the video for a moment, the path itself for all others."""
    return _split(path)[0]


def second_of(path: str) -> float | None:
    """The second of a moment; None for all other paths."""
    return _split(path)[1]


def clock(second: float) -> str:
    """A time as players show it: `0:12`, `1:02:05`."""
    minutes, seconds = divmod(int(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def spoken(path: str) -> str:
    """A path for people: `clips/party.mp4 at 0:12`."""
    file, second = _split(path)
    return file if second is None else f"{file} at {clock(second)}"


def file_name(path: str) -> str:
    """The name of a path's file, without its folder."""
    return os.path.basename(file_of(path))


def _split(path: str) -> tuple[str, float | None]:
    start = path.rfind(MARK, -MAX_FRAGMENT)
    if start >= 0 and is_video(path[:start]) and (found := _FRAGMENT.fullmatch(path, start)):
        return path[:start], float(found[1])
    return path, None
