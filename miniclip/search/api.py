"""The Python API of `import miniclip`: an index to search with a model (model.py).

In: images and texts in any common form. Out: hits that can open their file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from miniclip.data.images import ImageSource, open_image
from miniclip.index.image_index import ImageIndex
from miniclip.index.location import bring_up_to_date
from miniclip.search.filters import read_file_type
from miniclip.search.image_inputs import Images, Texts, as_list, as_texts, image_source
from miniclip.search.model import Model, load
from miniclip.search.place import Place
from miniclip.search.query import DEFAULT_TOP_K, Query
from miniclip.search.searcher import Searcher


@dataclass(frozen=True)
class Hit:
    """One image that a search found."""

    path: Path
    """The image's file; for a moment in a video the file of the video."""
    score: float
    """Cosine similarity of the image to the query."""
    probability: float | None
    """The probability that the image matches the query's words; None without words or without a calibrated model."""
    captions: list[str]
    """The image's captions, if its folder has a caption file."""
    by_name: bool = False
    """Whether captions, file or folder names or the date contain the query's words."""
    text: str = ""
    """The lines of text in the image that contain words of the query; indexing them needs the extra `ocr`."""
    second: float | None = None
    """The moment in its video, in seconds; None for an image."""
    _read: Callable[[], ImageSource] = field(default=bytes, repr=False, compare=False)

    def open(self) -> Image.Image:
        """Open the image, or the frame of the video.

        Returns:
            An upright RGB image of PIL.

        Raises:
            MiniClipError: The file no longer exists, or can no longer be read.
        """
        return open_image(self._read())


class Index:
    """The embedded images of one folder, ready to be searched. Made by `index` and `open_index`."""

    def __init__(self, searcher: Searcher, model: Model) -> None:
        self.searcher, self.model = searcher, model

    def __len__(self) -> int:
        return len(self.searcher.index)

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}, {len(self):,} images)"

    @property
    def folder(self) -> Path:
        """The folder of the index itself, for `miniclip search --index`."""
        return self.searcher.index.folder

    @property
    def paths(self) -> Sequence[Path]:
        """The path of every image, in the order of `embeddings`; a moment in a video as `party.mp4#t=12.5`."""
        return self.searcher.index.paths

    @property
    def embeddings(self) -> np.ndarray:
        """float32 array (N, D), read-only, with rows of unit length."""
        return self.searcher.index.image_embeds

    def search(
        self,
        query: Texts = (),
        *,
        images: Images = (),
        top_k: int = DEFAULT_TOP_K,
        names: bool = True,
        minus: Texts = (),
        distinct: bool = False,
        sort: str = "match",
        folder: str | Path | None = None,
        after: date | None = None,
        before: date | None = None,
        camera: str | None = None,
        orientation: str | None = None,
        min_megapixels: float | None = None,
        file_type: str | None = None,
        min_rating: int | None = None,
        near: tuple[float, float] | None = None,
        within_km: float | None = None,
    ) -> list[Hit]:
        """Find images by words, by images, or by both; with filters alone, list the newest images.

        A video is found by its best moment.

        Args:
            query: What the image should show; several phrasings are averaged.
            images: Images to search by, as in `Model.encode_images`.
            top_k: The largest number of hits.
            names: Whether captions, names, dates and the text in images count as well.
            minus: What the image should not show.
            distinct: Whether files of equal content count as one.
            sort: `"match"`, or `"date"` for the same images with the newest first.
            folder: Only images below this folder.
            after: Only images taken on that day or later.
            before: Only images taken on that day or earlier.
            camera: Only images of the camera with this name, or with this text in its name.
            orientation: Only images that are `"landscape"`, `"portrait"` or `"square"`.
            min_megapixels: Only images of at least this many million pixels.
            file_type: Only files of this type, such as `"jpeg"`.
            min_rating: Only images with at least this many stars, 1 to 5.
            near: Only images taken near this place: latitude and longitude in degrees.
            within_km: The largest distance from `near` in kilometres; 10 by default.

        Returns:
            Hits, best first.

        Raises:
            MiniClipError: The query is empty, or an image cannot be read.
        """
        asked = Query(
            texts=as_texts(query),
            images=tuple(image_source(image) for image in as_list(images)),
            minus=as_texts(minus),
            distinct=distinct,
            sort=sort,
            names=names,
            top_k=top_k,
            folder=folder,
            after=after,
            before=before,
            camera=camera,
            orientation=orientation,
            min_megapixels=min_megapixels,
            file_type=None if file_type is None else read_file_type(file_type),
            min_rating=min_rating,
            near=None if near is None else Place(*near),
            within_km=within_km,
        )
        is_browsing = not asked.has_subject and asked.set_filters
        hits = self.searcher.browse(asked) if is_browsing else self.searcher.search(asked).hits
        source = self.searcher.index.source
        return [
            Hit(
                hit.path,
                hit.score,
                hit.probability,
                hit.captions,
                hit.by_name,
                hit.text,
                hit.second,
                partial(source, hit.row),
            )
            for hit in hits
        ]


def index(folder: str | Path, model: Model | None = None, *, say: Callable[[str], object] | None = None) -> Index:
    """Index a folder of images, or update its index, and open it.

    The index is kept in the cache (`MINICLIP_CACHE`), one for each folder and model; nothing is written into the
    folder. Images that did not change keep their embeddings.

    Args:
        folder: A folder, `s3://BUCKET/FOLDER`, a caption file, `hf:USER/NAME`, or `openmoji`.
        model: The model that embeds them. By default, the one that ships with MiniCLIP.
        say: A function that gets lines about the progress, such as `print`.

    Returns:
        The index, ready to be searched.

    Raises:
        MiniClipError: The folder holds no image, or none that can be read.

    Example:
        >>> import miniclip
        >>> photos = miniclip.index("photos")
        >>> for hit in photos.search("a dog", top_k=3):
        ...     print(hit.path, hit.score, hit.probability)
        >>> photos.search("a dog")[0].open().save("best.png")
    """
    model = model or load()
    return open_index(bring_up_to_date(str(folder), model.encoders, say or (lambda line: None)), model)


def open_index(folder: str | Path, model: Model | None = None) -> Index:
    """Open an existing index, which `miniclip index` or `index` made, without updating it.

    Args:
        folder: The folder of the index.
        model: The model that made it. By default, it is loaded from the folder that the index names.

    Returns:
        The index, ready to be searched.

    Raises:
        MiniClipError: There is no index, or another model made it.
    """
    opened = ImageIndex.open(folder)
    model = model or load(opened.bundle_folder)
    return Index(Searcher(opened, model.encoders), model)
