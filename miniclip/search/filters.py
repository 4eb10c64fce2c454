"""Filters: the images that may answer a query, by facts about their files.

In: an index and the values of a `Filters`. Out: a mask of its rows. A new filter is a field of `Filters`, an entry in
`FILTERS`, a control of the same name in demo/static/search.html with its label in demo/languages/, and an argument of
`Index.search` (api.py). Commands, the page, its addresses and its messages take their filters from the table. If a
filter needs a new fact, add its column in miniclip/index/facts.py first; size in bytes and time are in
`ImageIndex.states`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniclip.data.moments import VIDEO_SUFFIXES
from miniclip.data.raw_preview import RAW_SUFFIXES
from miniclip.errors import InvalidArgument
from miniclip.search.place import Place, distance_km

if TYPE_CHECKING:  # help and flags of the command line must not import NumPy
    import numpy as np

    from miniclip.index.image_index import ImageIndex

ORIENTATIONS = ("landscape", "portrait", "square")
SQUARE_RATIO = 1.05  # largest ratio of the edges of a square image
OTHER_NAMES = {"jpg": "jpeg", "tif": "tiff", "heif": "heic", "jpeg2000": "jp2", "j2k": "jp2"}
OTHER_NAMES |= {suffix[1:]: "raw" for suffix in RAW_SUFFIXES} | {suffix[1:]: "video" for suffix in VIDEO_SUFFIXES}
DEFAULT_WITHIN_KM = 10.0
NO_PLACE = "must be latitude and longitude in degrees, such as 48.86,2.35"


@dataclass(frozen=True)
class Filter:
    """How one field of `Filters` is read, shown and applied."""

    help: str
    read: Callable[[str], Any]  # its `ValueError` describes valid text
    metavar: str
    mask: (
        Callable[[ImageIndex, Any], np.ndarray] | None
    )  # of an index and `Filters`; None if it only changes another filter, as `within_km` does
    choices: Callable[[ImageIndex], dict[str, int]] | None = None  # values in an index, with their counts
    applies: Callable[[ImageIndex], bool] = lambda index: True  # whether an index has the facts for it
    is_private: bool = False  # a public page neither offers nor answers it
    flag: str = ""  # if it differs from the field's name


def read_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError("must be a day such as 2024-12-31") from error


def read_folder(text: str) -> str:
    if not text:  # an unset shell variable gives an empty text, which would mean the current folder
        raise ValueError("is empty; name a folder, or leave it out")
    return text


def read_number(low: float, high: float, what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"must be {what}")
        return value

    return read


def read_place(text: str) -> Place:
    try:
        latitude, longitude = map(float, text.replace(";", ",").split(","))
    except ValueError as error:
        raise ValueError(NO_PLACE) from error
    if not Place(latitude, longitude).is_on_earth:
        raise ValueError(NO_PLACE)
    return Place(latitude, longitude)


def read_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; give a value, or leave it out")
    return text.strip()


def read_file_type(text: str) -> str:
    name = read_text(text).lower().lstrip(".")
    return OTHER_NAMES.get(name, name)


def _by_camera(index: ImageIndex, filters: Filters) -> np.ndarray:
    """The camera with exactly this name; if there is none, all cameras whose names contain the text."""
    wanted, camera = str(filters.camera).lower(), index.facts.camera
    exact = camera.rows_where(lambda name: name.lower() == wanted)
    return exact if exact.any() else camera.rows_where(lambda name: wanted in name.lower())


def _by_orientation(index: ImageIndex, filters: Filters) -> np.ndarray:
    import numpy as np

    width, height = index.facts.width_px, index.facts.height_px
    is_square = np.maximum(width, height) <= SQUARE_RATIO * np.minimum(width, height)
    if filters.orientation == "square":
        return np.asarray(is_square)
    return np.asarray(~is_square & ((width > height) if filters.orientation == "landscape" else (height > width)))


def _by_place(index: ImageIndex, filters: Filters) -> np.ndarray:
    assert filters.near is not None
    within = DEFAULT_WITHIN_KM if filters.within_km is None else filters.within_km
    nearby: np.ndarray = distance_km(filters.near, index.facts.latitude, index.facts.longitude) <= within
    return nearby


def _by_day(index: ImageIndex, filters: Filters) -> np.ndarray:
    """Both ends are inclusive days; images without a date never pass."""
    import numpy as np

    days = index.taken.astype("datetime64[D]")
    inside: np.ndarray = ~np.isnat(days)
    if filters.after:
        inside &= days >= np.datetime64(filters.after, "D")
    if filters.before:
        inside &= days <= np.datetime64(filters.before, "D")
    return inside


def _megapixels(index: ImageIndex) -> np.ndarray:
    megapixels: np.ndarray = index.facts.width_px / 1e6 * index.facts.height_px
    return megapixels


def _places(index: ImageIndex) -> bool:
    """Whether any image has a place."""
    return bool((index.facts.latitude == index.facts.latitude).any())  # NaN differs from itself


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Only images that pass all filters can be results. None means no filter."""

    folder: str | Path | None = None
    after: date | None = None
    before: date | None = None
    camera: str | None = None
    orientation: str | None = None
    min_megapixels: float | None = None
    file_type: str | None = None
    min_rating: int | None = None
    near: Place | None = None
    within_km: float | None = None

    def check_filters(self) -> None:
        """`InvalidArgument` for values that contradict each other."""
        if self.after and self.before and self.after > self.before:
            raise InvalidArgument(
                "after", f"must not be later than before, got {self.after} and {self.before}; swap them"
            )
        if self.orientation is not None and self.orientation not in ORIENTATIONS:
            raise InvalidArgument("orientation", f"must be landscape, portrait or square, got {self.orientation}")
        if self.near is not None and not self.near.is_on_earth:
            raise InvalidArgument("near", f"{NO_PLACE}, got {self.near}")
        if self.within_km is not None and self.near is None:
            raise InvalidArgument("within", "needs a place as well, such as --near 48.86,2.35")

    @property
    def filters(self) -> Filters:
        """Only the filters, without the other fields of a subclass."""
        return Filters(**{name: getattr(self, name) for name in FILTERS})

    @property
    def set_filters(self) -> dict[str, Any]:
        """The filters that are set, by name."""
        return {name: value for name in FILTERS if (value := getattr(self, name)) is not None}

    def allowed(self, index: ImageIndex) -> np.ndarray | None:
        """(N,) bool: the images that pass; None if no filter is set."""
        allowed: np.ndarray | None = None
        for name in self.set_filters:
            mask = FILTERS[name].mask
            if mask is not None:
                inside = mask(index, self)
                allowed = inside if allowed is None else allowed & inside
        return allowed


FILTERS: dict[str, Filter] = {
    "folder": Filter(
        help="only images below this folder",
        read=read_folder,
        metavar="FOLDER",
        mask=lambda index, filters: index.below(filters.folder),
        is_private=True,
    ),
    "after": Filter(
        help="only images taken on that day or later",
        read=read_day,
        metavar="YYYY-MM-DD",
        mask=_by_day,
        applies=lambda index: index.dated > 0,
    ),
    "before": Filter(
        help="only images taken on that day or earlier",
        read=read_day,
        metavar="YYYY-MM-DD",
        mask=_by_day,
        applies=lambda index: index.dated > 0,
    ),
    "camera": Filter(
        help="only images of this camera: its name, or a part of it",
        read=read_text,
        metavar="NAME",
        mask=_by_camera,
        choices=lambda index: index.facts.camera.counts,
        is_private=True,
    ),
    "orientation": Filter(
        help="only images that are landscape, portrait or square",
        read=str.lower,
        metavar="SHAPE",
        mask=_by_orientation,
    ),
    "min_megapixels": Filter(
        help="only images of at least this many million pixels",
        read=read_number(0, 1e6, "a number of million pixels, such as 2"),
        metavar="N",
        mask=lambda index, filters: _megapixels(index) >= filters.min_megapixels,
    ),
    "file_type": Filter(
        help="only files of this type: jpeg, png, webp, gif, tiff, bmp, avif, heic, jp2, jxl, raw or video",
        read=read_file_type,
        metavar="TYPE",
        mask=lambda index, filters: index.facts.file_type.rows_where(lambda name: name == filters.file_type),
        choices=lambda index: index.facts.file_type.counts,
        flag="type",
    ),
    "min_rating": Filter(
        help="only images with at least this many stars, 1 to 5",
        read=lambda text: int(read_number(1, 5, "a number of stars from 1 to 5")(text)),
        metavar="STARS",
        mask=lambda index, filters: index.facts.rating >= filters.min_rating,
        applies=lambda index: bool((index.facts.rating > 0).any()),
        is_private=True,
    ),
    "near": Filter(
        help="only images taken near this place, in degrees, such as 48.86,2.35",
        read=read_place,
        metavar="LAT,LON",
        mask=_by_place,
        applies=_places,
        is_private=True,
    ),
    "within_km": Filter(
        help=f"with --near: within this many kilometres (default {DEFAULT_WITHIN_KM:g})",
        read=read_number(0, 20_040, "a number of kilometres, such as 5"),
        metavar="KM",
        mask=None,
        applies=_places,
        is_private=True,
        flag="within",
    ),
}
