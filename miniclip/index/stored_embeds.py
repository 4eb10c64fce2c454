"""The embeddings of an index on disk, read by rows or in parts."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from miniclip.cpu import thread_count
from miniclip.index.embeddings_mmap import Put

READ_ROWS = 16_384  # read at a time: 32 MB for 512 dimensions


class StoredEmbeds:
    """The embeddings of one version of the table, on disk, by row of the index."""

    def __init__(self, table: Any, row_ids: np.ndarray, order: np.ndarray) -> None:
        """row_ids (N,) in the order of the table; order (N,) maps rows of the index to places in the table."""
        self.table, self._row_ids, self._order = table, row_ids, order
        self._place = np.empty(len(order), dtype=np.int64)
        self._place[order] = np.arange(len(order))
        self.dim = int(table.schema.field("embedding").type.list_size)

    def __len__(self) -> int:
        return len(self._order)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts of the whole, some megabytes each: rows (B,) and embeddings (B, D)."""
        for start in range(0, len(self), READ_ROWS):
            yield from self._part(start)

    def read(self) -> np.ndarray:
        """(N, D) float32; peak memory is one copy and a few batches."""
        embeds = np.empty((len(self), self.dim), dtype=np.float32)

        def put(rows: np.ndarray, part: np.ndarray) -> None:
            if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
                embeds[rows[0] : rows[-1] + 1] = part
            else:
                embeds[rows] = part

        self.put_all(put)
        embeds.flags.writeable = False
        return embeds

    def put_all(self, put: Put) -> None:
        """Pass all parts to `put`, in any order. The cores read in parallel."""

        def read(start: int) -> None:
            for rows, part in self._part(start):
                put(rows, part)

        with ThreadPoolExecutor(thread_count()) as pool:
            list(pool.map(read, range(0, len(self), READ_ROWS)))

    def _part(self, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read ranges, because a scan of the whole table reads far ahead and needs twice the memory."""
        query = self.table.search().select(["embedding"]).with_row_id(True).offset(start).limit(READ_ROWS)
        done = start
        for batch in query.to_arrow().to_batches():
            part = slice(done, done + batch.num_rows)
            if not np.array_equal(batch["_rowid"].to_numpy(), self._row_ids[part]):
                raise ValueError("its rows came in another order")
            yield self._place[part], batch["embedding"].flatten().to_numpy().reshape(batch.num_rows, -1)
            done += batch.num_rows
        if done != min(start + READ_ROWS, len(self)):
            raise ValueError("rows are missing")

    def take(self, rows: np.ndarray) -> np.ndarray:
        """rows (K,) -> (K, D) float32."""
        offsets, back = np.unique(self._order[rows], return_inverse=True)
        if len(offsets) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        found = self.table.take_offsets(offsets.tolist()).select(["embedding"]).to_arrow()
        embeds = found["embedding"].combine_chunks().flatten().to_numpy().reshape(len(offsets), -1)
        return np.asarray(embeds[back])

    def rows_of(self, row_ids: np.ndarray) -> np.ndarray:
        """Rows of the index for row ids of the table."""
        ids = self._row_ids[self._order]
        by_id = np.argsort(ids)
        return np.asarray(by_id[np.searchsorted(ids, row_ids, sorter=by_id)])
