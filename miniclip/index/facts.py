"""The facts about image files that filters use: size, camera, rating, place and type, in columns.

In: the images' table, or the arrays of its summary. Out: `ImageFacts`. A new fact is a field of
`miniclip.data.metadata.Metadata`, and here a line in `METADATA_COLUMNS` and a field of `ImageFacts`. Its `since` is
`INDEX_FORMAT` in settings.py plus one, so that the next update reads the fact of images that were indexed before.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Column(NamedTuple):
    """A column of the table whose values may be missing."""

    kind: str  # type in Arrow and NumPy
    sql_type: str  # for an index that lacks the column
    since: int  # the first format of an index that has it


METADATA_COLUMNS = {
    "camera": Column("string", "string", since=4),
    "rating": Column("int8", "tinyint", since=4),
    "latitude": Column("float64", "double", since=4),
    "longitude": Column("float64", "double", since=4),
    "file_type": Column("string", "string", since=4),
}
FACT_KINDS = {
    **{"width_px": "int32", "height_px": "int32"},
    **{name: column.kind for name, column in METADATA_COLUMNS.items()},
}


def metadata_fields() -> "list[pa.Field]":
    import pyarrow as pa

    return [pa.field(name, pa.type_for_alias(column.kind)) for name, column in METADATA_COLUMNS.items()]


def facts_since(index_format: int) -> list[str]:
    """The facts that an index of this format lacks, in words."""
    return [name.replace("_", " ") for name, column in METADATA_COLUMNS.items() if column.since > index_format]


@dataclass(frozen=True)
class Labels:
    """One of few distinct texts for each row, or none."""

    codes: np.ndarray  # (N,) int32, places in `names`; -1 for none
    names: tuple[str, ...]

    @classmethod
    def from_arrow(cls, values: "pa.Array") -> "Labels":
        """A `pyarrow` string array."""
        encoded = values.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return cls(codes, tuple(encoded.dictionary.to_pylist()))

    def rows_where(self, is_wanted: Callable[[str], bool]) -> np.ndarray:
        """(N,) bool: the rows whose text is wanted."""
        wanted = np.array([is_wanted(name) for name in self.names] + [False])  # the last one is for -1
        return np.asarray(wanted[self.codes])

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of rows with each text, the most frequent first."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {self.names[code]: int(counts[code]) for code in order.tolist() if counts[code]}


@dataclass(frozen=True)
class ImageFacts:
    """Row i of every field is the same image."""

    width_px: np.ndarray  # (N,) int32, upright
    height_px: np.ndarray
    camera: Labels
    file_type: Labels
    rating: np.ndarray  # (N,) int8: 1 to 5 stars, -1 rejected, 0 unrated
    latitude: np.ndarray  # (N,) float64 in degrees, NaN without a place
    longitude: np.ndarray

    @classmethod
    def from_columns(cls, columns: "Mapping[str, pa.Array]", count: int) -> "ImageFacts":
        """Read columns of the table. In an older format, some are missing, and images then lack these facts."""
        facts: dict[str, Any] = {name: _fact(columns.get(name), kind, count) for name, kind in FACT_KINDS.items()}
        return cls(**facts)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """By name, for the summary's file."""
        arrays: dict[str, np.ndarray] = {}
        for name, value in vars(self).items():
            if isinstance(value, Labels):
                arrays[name], arrays[f"{name}_names"] = value.codes, np.array(value.names, dtype=np.str_)
            elif name in self.__dataclass_fields__:
                arrays[name] = value
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ImageFacts":
        """Read the result of `to_arrays`.

        Errors: `KeyError` for a file of an older MiniCLIP, `ValueError` for a damaged one.
        """
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            values[name] = arrays[name]
            if f"{name}_names" in arrays:
                values[name] = Labels(arrays[name], tuple(arrays[f"{name}_names"].tolist()))
                if len(arrays[name]) and not -1 <= arrays[name].min() <= arrays[name].max() < len(values[name].names):
                    raise ValueError(name)
        facts = cls(**values)
        if {len(column) for column in facts.columns} != {len(facts.width_px)}:
            raise ValueError("columns of different length")
        return facts

    @property
    def columns(self) -> list[np.ndarray]:
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return [value.codes if isinstance(value, Labels) else value for value in values]

    def __len__(self) -> int:
        return len(self.width_px)


def _fact(values: "pa.Array | None", kind: str, count: int) -> Labels | np.ndarray:
    """One column in memory. Images without a value have no label, NaN or 0."""
    if kind == "string":
        return Labels(np.full(count, -1, np.int32), ()) if values is None else Labels.from_arrow(values)
    missing = math.nan if kind.startswith("float") else 0
    if values is None:
        return np.full(count, missing, dtype=kind)
    return np.asarray(values.fill_null(missing).to_numpy(zero_copy_only=False), dtype=kind)
