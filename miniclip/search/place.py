"""Places on the earth, and distances between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # help and flags of the command line must not import NumPy
    import numpy as np

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG


@dataclass(frozen=True)
class Place:
    """Degrees; north and east are positive."""

    latitude: float
    longitude: float

    @property
    def is_on_earth(self) -> bool:
        return abs(self.latitude) <= 90 and abs(self.longitude) <= 180

    def __str__(self) -> str:
        return f"{self.latitude:g},{self.longitude:g}"


def distance_km(place: Place, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(N,) great-circle distances by the haversine formula, NaN if a place is NaN."""
    import numpy as np

    ours, theirs = math.radians(place.latitude), np.radians(latitude)
    east = np.radians(longitude - place.longitude)
    half_chord = np.sin((theirs - ours) / 2) ** 2 + math.cos(ours) * np.cos(theirs) * np.sin(east / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half_chord, 0, 1))))
