"""Embed an index on many machines: Ray Data distributes the files, lance-ray writes the table.

In: the files that `miniclip.index.indexer` found new or changed. Out: the same rows that a single process writes. Our
code decides how to process an image (`read_file`) and when to commit rows; Ray manages the machines, the queue and
recovery; Lance writes the table. Rows are committed after every `CHUNK` files, so a cluster that stops loses at most
one chunk. Images (or object storage), bundle and index must have the same path on every machine.

    miniclip index s3://bucket/images --bundle B --out /shared/index --ray auto
"""

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from miniclip.data.paths import printable
from miniclip.data.progress import ProgressBar
from miniclip.errors import MiniClipError, is_retryable
from miniclip.index.embed_file import KnownContents, read_file, row_columns
from miniclip.index.indexer import Write
from miniclip.index.lance_errors import writing
from miniclip.index.scan_result import ImageFile, Problem, ScanResult
from miniclip.index.schema import index_schema
from miniclip.index.store import Writer
from miniclip.index.update_plan import Plan
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.installation import install

CHUNK = 100_000  # files between two commits
BLOCK = 256  # files per block, the work that an actor gets at a time
REASON, RETRYABLE = "reason", "retryable"  # extra columns for files that could not be read


class RayEmbedder:
    """An actor of the cluster: encoders on one core that stay open for many blocks."""

    def __init__(self, bundle: str, precision: str, dim: int) -> None:
        self._encoders = OnnxEncoders(Bundle.open(Path(bundle)), "cpu", precision, threads=1)
        self._schema = result_schema(dim)

    def __call__(self, files: pa.Table) -> pa.Table:
        """path, bytes, mtime_ns, captions (B files) -> rows of images; a row without an embedding has a reason."""
        return embed_block(files, self._encoders, self._schema)


def result_schema(dim: int) -> pa.Schema:
    """The index's columns, all nullable, with the reason and whether to retry."""
    fields = [field.with_nullable(True) for field in index_schema(dim)]
    return pa.schema([*fields, pa.field(REASON, pa.string()), pa.field(RETRYABLE, pa.bool_())])


def embed_block(files: pa.Table, encoders: OnnxEncoders, schema: pa.Schema) -> pa.Table:
    """As `RayEmbedder.__call__`, with open encoders."""
    readings, failed = [], []
    for row in files.to_pylist():
        file = ImageFile(row["path"], row["bytes"], row["mtime_ns"], tuple(row["captions"]))
        try:
            readings += read_file(file, encoders, KnownContents())
        except MiniClipError as error:
            own = {"path": file.path, "bytes": file.bytes, "mtime_ns": file.mtime_ns}
            failed.append(own | {REASON: str(error), RETRYABLE: is_retryable(error)})
    parts = [pa.Table.from_pylist(failed, schema=schema)]
    if readings:
        rows = pa.table(row_columns(readings, {}, encoders.dim), schema=index_schema(encoders.dim))
        rows = rows.append_column(schema.field(REASON), pa.nulls(len(readings), pa.string()))
        rows = rows.append_column(schema.field(RETRYABLE), pa.nulls(len(readings), pa.bool_()))
        parts.append(rows.cast(schema))
    return pa.concat_tables(parts)


def on_cluster(address: str) -> Write:
    """The `write` function for `update_index` that embeds on the Ray cluster at this address.

    Errors: `MiniClipError` if Ray is not installed or nothing answers at the address.
    """
    try:
        import lance_ray
        import ray
        from ray.data.expressions import col
    except ImportError as error:
        raise MiniClipError(f"--ray needs {error.name}: {install('ray')}") from error
    if not ray.is_initialized():
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or ["no answer"])[0]
            raise MiniClipError(f"no Ray cluster at {address} ({reason}); start one with: ray start --head") from error
    ray.data.DataContext.get_current().enable_progress_bars = False

    def write(
        plan: Plan, found: ScanResult, encoders: OnnxEncoders, writer: Writer, stop: threading.Event
    ) -> tuple[int, int]:
        added = 0
        with ProgressBar(total=len(plan.fresh), desc="embedding images", unit="image", disable=None) as bar:
            for start in range(0, len(plan.fresh), CHUNK):
                chunk = plan.fresh[start : start + CHUNK]
                with _one_line():
                    done = _embedded(chunk, encoders)
                    good = done.filter(expr=col(REASON).is_null()).drop_columns([REASON, RETRYABLE])
                    added += (count := good.count())
                    problems = _problems(done.filter(expr=col(REASON).is_not_null()))
                kept = {problem.path for problem in problems if problem.retryable}
                writer.remove(plan.row_paths(file.path for file in chunk if file.path not in kept))
                if count:
                    with writing(writer.folder), _one_line():
                        lance_ray.write_lance(good, writer.images_uri, schema=writer.schema, mode="append")
                writer.put_problems(problems)
                plan.problems.update((problem.path, problem) for problem in problems)
                for problem in problems:
                    tqdm.write(f"skipping {printable(problem.path)}: {problem.reason}")
                bar.update(len(chunk))
                if stop.is_set():
                    break
        return added, 0

    return write


@contextmanager
def _one_line() -> Iterator[None]:
    """Convert errors that stop the whole cluster, such as a bundle that its machines cannot see, to `MiniClipError`."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise MiniClipError(
            f"the Ray cluster gave up: {lines[-1] if lines else type(error).__name__}; "
            "check that images, bundle and index have the same path on all its machines, then run the command again; "
            "finished images are kept"
        ) from error


def _knock(address: str) -> None:
    """`OSError` at once if nothing listens at the address; Ray itself would retry for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _embedded(files: Sequence[ImageFile], encoders: OnnxEncoders) -> Any:
    """The results as a Ray data set, computed and stored on the cluster."""
    import ray

    cluster: Any = ray  # its functions have no types
    columns = {name: [getattr(file, name) for file in files] for name in ("path", "bytes", "mtime_ns")}
    table = pa.table({**columns, "captions": pa.array([file.captions for file in files], pa.list_(pa.string()))})
    blocks = [table.slice(start, BLOCK).combine_chunks() for start in range(0, len(files), BLOCK)]
    cores = int(cluster.cluster_resources().get("CPU", 1))
    slots = max(1, cores - len(cluster.nodes()))  # leaves one core of each machine for other work
    most = min(slots, len(blocks))
    embedded = ray.data.from_arrow(blocks).map_batches(
        RayEmbedder,
        fn_constructor_args=(str(encoders.bundle.folder.resolve()), encoders.precision, encoders.dim),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        concurrency=(1, most, most),  # all if possible, but one is enough to continue after machines are lost
    )
    return embedded.materialize()


def _problems(failed: Any) -> list[Problem]:
    rows = failed.select_columns(["path", "bytes", "mtime_ns", REASON, RETRYABLE]).take_all()
    return [Problem(row["path"], row[REASON], row["bytes"], row["mtime_ns"], bool(row[RETRYABLE])) for row in rows]
