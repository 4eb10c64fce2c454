"""Names of emoji find them: at least 24 of 28 queries have a correct one among the first five results."""

from miniclip.index.image_index import ImageIndex
from miniclip.index.location import bring_up_to_date
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import released_bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.query import Query
from miniclip.search.searcher import Searcher
from tests.support.emoji_queries import QUERIES


def test_words_find_emoji_by_name() -> None:
    encoders = OnnxEncoders(Bundle.open(released_bundle()), "cpu")
    searcher = Searcher(ImageIndex.open(bring_up_to_date("openmoji", encoders)), encoders)

    def is_right(words: str) -> bool:
        hits = searcher.search(Query(texts=(words,), names=True, top_k=5)).hits
        return any(hit.path.stem.replace("-FE0F", "") in QUERIES[words] for hit in hits)

    wrong = [words for words in QUERIES if not is_right(words)]
    assert len(QUERIES) == 28 and len(wrong) <= 4, wrong
