"""The Python API of `import miniclip`: a model, and an index to search with it.

In: images and texts in any common form. Out: numpy arrays, and hits that can open their file.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image, ImageOps

from miniclip.data.images import ImageSource, open_image
from miniclip.data.web_image import fetch_image, is_web_address
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.location import bring_up_to_date
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle
from miniclip.inference.encoders import OnnxEncoders
from miniclip.search.filters import Place, read_file_type
from miniclip.search.query import DEFAULT_TOP_K, Query
from miniclip.search.searcher import Searcher
from miniclip.search.zero_shot import TEMPLATES, classify

AnyImage = str | Path | bytes | Image.Image | np.ndarray
Images = AnyImage | Sequence[AnyImage]
Texts = str | Sequence[str]


class Model:
    """An image tower and a text tower that embed into one space. Made by `load`; safe to use from several threads."""

    def __init__(self, encoders: OnnxEncoders) -> None:
        self.encoders = encoders

    @property
    def dim(self) -> int:
        """The number of dimensions D of an embedding."""
        return self.encoders.dim

    @property
    def name(self) -> str:
        """The name of its bundle."""
        return self.encoders.bundle.name

    def __repr__(self) -> str:
        return f"Model({self.name!r}, dim={self.dim}, {self.encoders.running_on!r})"

    @overload
    def encode_images(self, images: Images, on_error: Literal["raise"] = "raise") -> np.ndarray: ...
    @overload
    def encode_images(self, images: Images, on_error: Literal["skip"]) -> tuple[np.ndarray, np.ndarray]: ...
    def encode_images(
        self, images: Images, on_error: Literal["raise", "skip"] = "raise"
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Embed images.

        Args:
            images: One image or a sequence. Each is a path, an http(s) address, the bytes of a file, a PIL image, or
                a uint8 array (H, W, 3) or (H, W).
            on_error: `"raise"`, or `"skip"` to leave out images that cannot be read.

        Returns:
            float32 array (N, D) with rows of unit length. With `on_error="skip"`, `(embeddings (M, D), rows (M,))`
            of the M images that could be read.

        Raises:
            MiniClipError: An image cannot be read, and `on_error` is `"raise"`.
        """
        if on_error not in ("raise", "skip"):
            raise MiniClipError(f'on_error must be "raise" or "skip", got {on_error!r}')
        skip = on_error == "skip"
        rows: list[int] = []
        sources: list[ImageSource] = []
        for row, image in enumerate(_as_list(images)):
            try:
                sources.append(_source(image))
                rows.append(row)
            except MiniClipError:
                if not skip:
                    raise
        kept, embeds = self.encoders.encode_images(sources, (lambda row, reason: None) if skip else None)
        return (embeds, np.asarray(rows, dtype=np.int64)[kept]) if skip else embeds

    def encode_texts(self, texts: Texts) -> np.ndarray:
        """Embed texts.

        Args:
            texts: One text or a sequence of texts.

        Returns:
            float32 array (N, D) with rows of unit length.
        """
        return self.encoders.encode_texts([texts] if isinstance(texts, str) else list(texts))

    def similarity(self, texts: Texts | np.ndarray, images: Images) -> np.ndarray:
        """Compare texts with images.

        Args:
            texts: Texts, or their embeddings (N_texts, D).
            images: Images, or their embeddings (N_images, D).

        Returns:
            float32 array (N_texts, N_images) of cosine similarities.
        """
        text_embeds = texts if isinstance(texts, np.ndarray) else self.encode_texts(texts)
        is_embedded = isinstance(images, np.ndarray) and images.dtype.kind == "f" and images.ndim == 2
        image_embeds = images if is_embedded else self.encode_images(images)
        return np.asarray(text_embeds @ np.asarray(image_embeds).T)

    def classify(
        self, images: Images, labels: Sequence[str], templates: Sequence[str] = TEMPLATES
    ) -> list[dict[str, float]]:
        """Say which of some labels fits each image best, without training.

        Args:
            images: As in `encode_images`.
            labels: Two or more labels, such as `["cat", "dog"]`.
            templates: Texts in which `{}` is the label's place; their embeddings are averaged.

        Returns:
            One dictionary for each image: probability by label, the likeliest label first. They sum to 1 and
            compare the labels with each other; they do not say whether any of them is true.

        Raises:
            MiniClipError: An image cannot be read, or there are fewer than two labels.
        """
        labels = list(labels)
        _, probabilities = classify(
            [_source(image) for image in _as_list(images)], labels, self.encoders, None, templates
        )
        return [
            dict(sorted(zip(labels, own, strict=True), key=lambda pair: -pair[1])) for own in probabilities.tolist()
        ]


@dataclass(frozen=True)
class Hit:
    """One image that a search found."""

    path: Path
    """The image's file."""
    score: float
    """Cosine similarity of the image to the query."""
    probability: float | None
    """How likely the image matches the query's words; None without words or without a calibrated model."""
    captions: list[str]
    """The image's captions, if its folder has a caption file."""
    by_name: bool = False
    """Whether captions, file or folder names or the date hold the query's words."""
    text: str = ""
    """The lines of text in the image that hold words of the query; needs the extra `ocr` when it is indexed."""
    _read: Callable[[], ImageSource] = field(default=bytes, repr=False, compare=False)

    def open(self) -> Image.Image:
        """Open the image.

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
        """The path of every image, in the order of `embeddings`."""
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

        Args:
            query: What the image should show; several phrasings are averaged.
            images: Images to search by, as in `Model.encode_images`.
            top_k: The largest number of hits.
            names: Whether captions, names, dates and the text in images take part, too.
            minus: What the image should not show.
            distinct: Whether files of equal content count as one.
            sort: `"match"`, or `"date"` for the same images with the newest first.
            folder: Only images below this folder.
            after: Only images taken on that day or later.
            before: Only images taken on that day or earlier.
            camera: Only images of the camera with this name, or with this text in its name.
            orientation: Only images that are `"landscape"`, `"portrait"` or `"square"`.
            min_megapixels: Only images of at least so many million pixels.
            file_type: Only files of this type, such as `"jpeg"`.
            min_rating: Only images with at least so many stars, 1 to 5.
            near: Only images taken near this place: latitude and longitude in degrees.
            within_km: The largest distance from `near` in kilometres; 10 by default.

        Returns:
            Hits, best first.

        Raises:
            MiniClipError: The query is empty, or an image cannot be read.
        """
        asked = Query(
            texts=_texts(query),
            images=tuple(_source(image) for image in _as_list(images)),
            minus=_texts(minus),
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
            Hit(hit.path, hit.score, hit.probability, hit.captions, hit.by_name, hit.text, partial(source, hit.row))
            for hit in hits
        ]


def load(
    bundle: str | Path | None = None,
    *,
    provider: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load a model.

    Args:
        bundle: A bundle's folder, or `USER/NAME[@REVISION]` on the Hugging Face hub. By default the one that ships.
        provider: Where it runs: `"auto"`, `"cuda"` or `"cpu"`.
        precision: `"auto"`, `"fp32"`, `"fp16"` or `"int8"`.
        threads: CPU cores to use; all by default.

    Returns:
        The model.

    Raises:
        MiniClipError: There is no such bundle, or its files do not match their hashes.

    Example:
        >>> import miniclip
        >>> model = miniclip.load()
        >>> image_embeds = model.encode_images(["photos/dog.jpg", "photos/beach.jpg"])  # (2, D)
        >>> text_embeds = model.encode_texts(["a dog", "people at the beach"])  # (2, D)
        >>> print(model.similarity(text_embeds, image_embeds))
    """
    return Model(OnnxEncoders(Bundle.open(find_bundle(bundle, precision)), provider, precision, threads=threads))


def index(folder: str | Path, model: Model | None = None, *, say: Callable[[str], object] | None = None) -> Index:
    """Index a folder of images, or update its index, and open it.

    The index is kept in the cache (`MINICLIP_CACHE`), one for each folder and model; nothing is written into the
    folder. Images that did not change keep their embeddings.

    Args:
        folder: A folder, `s3://BUCKET/FOLDER`, a caption file, `hf:USER/NAME`, or `openmoji`.
        model: The model that embeds them. By default the one that ships.
        say: Called with lines about what happens, such as `print`.

    Returns:
        The index, ready to be searched.

    Raises:
        MiniClipError: There is no image, or none of them can be read.

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
    """Open an index that `miniclip index` or `index` made, as it is.

    Args:
        folder: The folder of the index.
        model: The model that made it. By default it is loaded from where it was then.

    Returns:
        The index, ready to be searched.

    Raises:
        MiniClipError: There is no index, or another model made it.
    """
    opened = ImageIndex.open(folder)
    model = model or load(opened.bundle_folder)
    return Index(Searcher(opened, model.encoders), model)


def _as_list(images: Images) -> list[AnyImage]:
    """One image or many, as a list."""
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    return list(images)


def _texts(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _source(image: Any) -> ImageSource:
    """The decoder's input: a path, or the bytes of a file."""
    if isinstance(image, str) and is_web_address(image):
        return fetch_image(image)
    if isinstance(image, str | Path):
        return Path(image).expanduser()
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise MiniClipError(
                f"an image array must be uint8 of shape (H, W) or (H, W, 3), got {image.dtype} {image.shape}"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise MiniClipError(f"an image is a path, bytes, a PIL image or an array, got {type(image).__name__}")
    content = io.BytesIO()
    (ImageOps.exif_transpose(image) or image).save(content, "TIFF")  # exact, in every mode, and quick
    return content.getvalue()
