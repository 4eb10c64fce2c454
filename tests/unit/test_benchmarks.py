"""The benchmarks measure what they name."""

from pathlib import Path

import numpy as np

from benchmarks.exact_ranks import numpy_top_k, ranks_equal, unit_rows
from benchmarks.search_scale import ONE_FOLDER, make_index
from miniclip.index.image_index import ImageIndex
from miniclip.search.compose import allowed_rows


def test_the_query_in_one_folder_searches_a_hundredth_of_the_rows(tmp_path: Path) -> None:
    make_index(tmp_path, unit_rows(20, 16, seed=0), rows=1000, dim=16)
    allowed = allowed_rows(ONE_FOLDER, ImageIndex.open(tmp_path))
    assert allowed is not None and np.flatnonzero(allowed).tolist() == list(range(70, 80))


def test_ranks_may_differ_only_where_scores_are_equal() -> None:
    gallery = unit_rows(100, 16, seed=0)
    gallery[-1] = gallery[0]
    scores, expected = numpy_top_k(gallery, gallery[:1])
    assert {*expected[0, :2]} == {0, 99}
    swapped = expected[:, [1, 0, *range(2, 10)]]
    assert ranks_equal(scores, expected, swapped)
    assert not ranks_equal(scores, expected, np.roll(expected, 1, axis=1))
