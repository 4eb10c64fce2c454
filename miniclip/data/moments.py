"""Paths of moments in videos: `clips/party.mp4#t=12.5` is the frame at second 12.5 of `clips/party.mp4`.

An index has one row for each kept frame of a video, so it needs paths that name a file and a second. A path names a
moment only if the part before `#t=` has a suffix of `VIDEO_SUFFIXES`: `photo#t=1.jpg` is an ordinary file.
Source: W3C Media Fragments URI 1.0, section 4.2.1 (normal play time in seconds).
"""

import os
import re

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv"),
    *(".mpg", ".mpeg", ".mts", ".m2ts", ".flv", ".ogv"),
)
VIDEO_FORMAT = "VIDEO"  # written like the names of Pillow's formats
MARK = "#t="
MAX_FRAGMENT = 16  # characters: `#t=`, nine digits, a point and milliseconds
_FRAGMENT = re.compile(r"#t=(\d{1,9}(?:\.\d{1,3})?)", re.ASCII)


def is_video(path: str) -> bool:
    """Whether the suffix of a path is that of a video."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def moment(file: str, second: float) -> str:
    """The path of the frame at this second of a video, rounded to milliseconds."""
    return f"{file}{MARK}{f'{second:.3f}'.rstrip('0').rstrip('.')}"


def file_of(path: str) -> str:
    """The path of the video if `path` is a moment, otherwise `path` itself."""
    return _split(path)[0]


def second_of(path: str) -> float | None:
    """The second if `path` is a moment, otherwise None."""
    return _split(path)[1]


def clock(second: float) -> str:
    """A time in minutes and seconds as players show it: `0:12`, `1:02:05`."""
    minutes, seconds = divmod(int(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def readable(path: str) -> str:
    """A path in words: `clips/party.mp4 at 0:12` for a moment, otherwise `path` itself."""
    file, second = _split(path)
    return file if second is None else f"{file} at {clock(second)}"


def file_name(path: str) -> str:
    """The name of the file, without its folder."""
    return os.path.basename(file_of(path))


def _split(path: str) -> tuple[str, float | None]:
    """The file and the second of a path; the second is None if the path is not a moment."""
    start = path.rfind(MARK, -MAX_FRAGMENT)
    if start >= 0 and is_video(path[:start]) and (found := _FRAGMENT.fullmatch(path, start)):
        return path[:start], float(found[1])
    return path, None
