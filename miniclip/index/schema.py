"""The columns of the two tables of an index, and the columns that are added to an older index.

A new column is a field of `index_schema`, an entry in `ADDED_COLUMNS`, and a higher format (settings.py). A fact from
the metadata of an image is an entry in the table of facts.py instead.
"""

from typing import TYPE_CHECKING

from miniclip.index.facts import METADATA_COLUMNS, metadata_fields

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES, PROBLEMS = "pictures", "problems"
# later columns: SQL for the rows of an index that lacks them. A problem of an older index does not say whether a retry
# may help, so each file is retried once
ADDED_COLUMNS = {
    IMAGES: {
        "remark": "cast(NULL as string)",
        "text": "cast(NULL as string)",
        **{name: f"cast(NULL as {column.sql_type})" for name, column in METADATA_COLUMNS.items()},
    },
    PROBLEMS: {"retryable": "true"},
}
READ_AGAIN = ("taken", *METADATA_COLUMNS)  # read again by the update that upgrades an older index
IMAGE_COLUMNS = ("width_px", "height_px", "taken", "remark", "text", *METADATA_COLUMNS)  # equal for equal content


def problem_schema() -> "pa.Schema":
    """Columns of `problems.lance`."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("retryable", pa.bool_(), nullable=False),
        ]
    )


def index_schema(dim: int) -> "pa.Schema":
    """Columns of `pictures.lance` for embeddings of `dim` dimensions."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),  # as miniclip.data.paths.stored_path gives it
            pa.field("sha256", pa.binary(32), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("indexed_at", pa.timestamp("ms"), nullable=False),  # UTC
            pa.field("width_px", pa.int32(), nullable=False),  # upright
            pa.field("height_px", pa.int32(), nullable=False),
            pa.field("taken", pa.timestamp("s")),  # the camera's own time
            pa.field("captions", pa.list_(pa.string()), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("remark", pa.string()),  # a fault of a file that could still be indexed
            pa.field("text", pa.string()),  # the text in the image; NULL until it is read
            *metadata_fields(),
        ]
    )
