"""`miniclip.Model`: images and texts to embeddings, similarities and labels.

In: images and texts in any common form. Out: numpy arrays, and probabilities by label.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np

from miniclip.data.images import ImageSource
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.image_inputs import Images, Texts, as_list, image_source
from miniclip.search.zero_shot import TEMPLATES, classify


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
        for row, image in enumerate(as_list(images)):
            try:
                sources.append(image_source(image))
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
            [image_source(image) for image in as_list(images)], labels, self.encoders, None, templates
        )
        return [
            dict(sorted(zip(labels, own, strict=True), key=lambda pair: -pair[1])) for own in probabilities.tolist()
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
        bundle: A bundle's folder, or `USER/NAME[@REVISION]` on the Hugging Face hub. By default, the model
            that ships with MiniCLIP.
        provider: Where the model runs: `"auto"`, `"cuda"`, `"coreml"`, `"directml"` or `"cpu"`.
        precision: `"auto"`, or a precision that the model has, such as `"int8"`.
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
