"""Resize and normalise an RGB image to the `pixel_values` of a vision tower.

In: an RGB image and `preprocessor_config.json`. Out: `(3, H, W)` float32.

That file may have the keys of transformers, or those of open_clip and jina-clip (`size`, `resize_mode`,
`interpolation`, `mean`, `std`). Unknown keys are refused, because ignoring a key could silently give wrong embeddings.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniclip.data.images import ImageSource, open_image
from miniclip.errors import MiniClipError

# keys of transformers that change no pixel
IGNORED_KEYS = (
    "auto_map", "data_format", "default_to_square", "device", "disable_grouping", "feature_extractor_type",
    "image_processor_class", "image_processor_type", "image_seq_length", "input_data_format", "processor_class",
    "return_tensors", "use_square_size", "_valid_processor_keys", "transformers_version", "use_fast",
)  # fmt: skip
KNOWN_KEYS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb",
    "include_top", "rescale_offset",  # of EfficientNet
    "max_num_patches", "patch_size",  # of SigLIP 2 for images of any shape
)  # fmt: skip
# keys of a backbone that are replaced: the recipe sets its sizes, and its weights are changed to RGB order
REPLACED_OF_BACKBONE = ("size", "crop_size", "do_center_crop", "crop_pct", "do_flip_channel_order")
OPEN_CLIP_KEYS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class ImageTransform:
    """Resize and normalise as in a bundle's `preprocessor_config.json`.

    Without a crop, the whole image is squashed to `height_px` x `width_px` (as in SigLIP). With `resize_shortest_px`,
    the shorter edge is resized to this length, and the centre is cropped (as in CLIP). With `squash_px`, the image is
    squashed to this height and width, and the centre is cropped (as in ALIGN).
    """

    height_px: int
    width_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = int(Image.Resampling.BICUBIC)
    resize_shortest_px: int | None = None
    squash_px: tuple[int, int] | None = None

    def fit(self, image: Image.Image) -> Image.Image:
        """RGB image -> RGB image of the tower's input size."""
        # reducing_gap: Pillow shrinks a large image in two steps, which is much faster and looks the same
        if self.squash_px is not None:
            height, width = self.squash_px
        elif self.resize_shortest_px is None:
            return image.resize((self.width_px, self.height_px), self.resample, reducing_gap=2.0)
        else:
            image = self._without_far_ends(image)
            # CLIP rounds down
            width, height = (edge * self.resize_shortest_px // min(image.size) for edge in image.size)
        image = image.resize((width, height), self.resample, reducing_gap=2.0)
        left, top = (width - self.width_px) // 2, (height - self.height_px) // 2
        return image.crop((left, top, left + self.width_px, top + self.height_px))

    def _without_far_ends(self, image: Image.Image) -> Image.Image:
        """Cut a very long image to what the crop needs: resizing all of 1 x 100,000 pixels would fill the memory."""
        longest = 8 * min(image.size) * max(1, self.min_size_px // (self.resize_shortest_px or 1))
        if max(image.size) <= longest:
            return image
        width, height = (min(edge, longest) for edge in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB image -> `pixel_values` (3, H, W) float32."""
        scale, offset = self.affine()
        # reorder to channels first as bytes, so that no float32 array is copied
        pixel_values: np.ndarray = np.ascontiguousarray(np.asarray(self.fit(image)).transpose(2, 0, 1)) * scale
        pixel_values += offset
        return pixel_values

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """(x / 255 - mean) / std as one multiplication and one addition, each (3, 1, 1)."""
        std = np.asarray(self.std, dtype=np.float32).reshape(3, 1, 1)
        mean = np.asarray(self.mean, dtype=np.float32).reshape(3, 1, 1)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    @property
    def min_size_px(self) -> int:
        """The smallest shorter edge at which a JPEG may be decoded without losing visible detail."""
        return max(self.height_px, self.width_px, self.resize_shortest_px or 0, *(self.squash_px or ()))

    def load(self, source: ImageSource) -> np.ndarray:
        """Path or bytes -> `pixel_values` (3, H, W) float32; `MiniClipError` when it cannot be read."""
        return self(open_image(source, self.min_size_px))

    def to_dict(self) -> dict[str, Any]:
        """The form of Hugging Face's `CLIPImageProcessor`, for transformers and transformers.js."""
        final = {"height": self.height_px, "width": self.width_px}
        size = final if self.squash_px is None else {"height": self.squash_px[0], "width": self.squash_px[1]}
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": size if self.resize_shortest_px is None else {"shortest_edge": self.resize_shortest_px},
            "resample": self.resample,
            "do_center_crop": self.resize_shortest_px is not None or self.squash_px is not None,
            "crop_size": final,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
        }

    @classmethod
    def from_file(cls, path: Path) -> "ImageTransform":
        """Read a `preprocessor_config.json`; `MiniClipError` when it is missing or has an unknown key."""
        return cls._read(path)

    @classmethod
    def for_backbone(cls, path: Path, size_px: int) -> "ImageTransform":
        """Squash to `size_px`, with the colours of a backbone's `preprocessor_config.json`. Errors: as above."""
        return cls._read(path, size_px)

    @classmethod
    def _read(cls, path: Path, backbone_size_px: int | None = None) -> "ImageTransform":
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError("it is not a JSON object")
            if "resize_mode" in values or "mean" in values:
                values = _from_open_clip(values)
            if backbone_size_px is not None:
                values = _resized_backbone(values, backbone_size_px)
            return cls._from_values(values)
        except OSError as error:
            raise MiniClipError(f"cannot read {path}: {error.strerror}") from error
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise MiniClipError(f"{path} is not an image preprocessor that MiniCLIP knows ({reason})") from error

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> "ImageTransform":
        _refuse_unknown(values, KNOWN_KEYS)
        if "max_num_patches" in values and "size" not in values:  # as many patches as fit in a square
            edge = int(values["patch_size"]) * math.isqrt(int(values["max_num_patches"]))
            values = {**values, "size": {"height": edge, "width": edge}}
        size = values["size"]
        crop = values.get("crop_size") if values.get("do_center_crop") else None
        shortest = squash = None
        if isinstance(size, int):  # older files: CLIP resizes and crops, ViT squashes
            size = {"shortest_edge": size} if crop else {"height": size, "width": size}
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        if "shortest_edge" in size:
            shortest = int(size["shortest_edge"])
            if crop is None:
                raise KeyError("crop_size")
        elif crop is not None and (size["height"], size["width"]) != (crop["height"], crop["width"]):
            squash = int(size["height"]), int(size["width"])
        final = crop or size
        mean, std, rescale_factor = _normalisation(values)
        transform = cls(
            height_px=int(final["height"]),
            width_px=int(final["width"]),
            mean=mean,
            std=std,
            resample=int(values.get("resample", Image.Resampling.BICUBIC)),
            resize_shortest_px=shortest,
            squash_px=squash,
        )
        if not values.get("do_resize", True):
            raise ValueError("do_resize is false, and a tower takes images of one size")
        transform._check(rescale_factor, bool(values.get("do_rescale", True)))
        return transform

    def _check(self, rescale_factor: float, do_rescale: bool) -> None:
        """`ValueError` for a value that cannot work, or that this class does not support."""
        for edge in (self.height_px, self.width_px, self.resize_shortest_px or 1, *(self.squash_px or ())):
            if not 1 <= edge <= 4096:
                raise ValueError(f"the size must be from 1 to 4096 pixels, got {edge}")
        if self.squash_px is not None and (self.squash_px[0] < self.height_px or self.squash_px[1] < self.width_px):
            raise ValueError("the crop is larger than the size")
        Image.Resampling(self.resample)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and min(self.std) > 0):
            raise ValueError("image_mean must be finite and image_std above 0")
        if not do_rescale or abs(rescale_factor * 255 - 1) > 1e-3:
            raise ValueError("pixels can be scaled only by 1/255")


def _resized_backbone(values: dict[str, Any], size_px: int) -> dict[str, Any]:
    """The values of a backbone's preprocessor, squashing to `size_px`."""
    kept = {key: value for key, value in values.items() if key not in REPLACED_OF_BACKBONE}
    if "do_flip_channel_order" in values and "image_mean" not in values:  # MobileViT
        kept["do_normalize"] = False
    return {**kept, "size": {"height": size_px, "width": size_px}}


def _refuse_unknown(values: dict[str, Any], known: tuple[str, ...]) -> None:
    """`ValueError` for an unknown key that could change pixels. Null, false and empty values change nothing."""
    unknown = [key for key in values if key not in known and key not in IGNORED_KEYS and values[key]]
    if unknown:
        raise ValueError(f"it sets {', '.join(sorted(unknown))}, which MiniCLIP does not support")


def _normalisation(values: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Mean and standard deviation of pixels in [0, 1], and the factor that maps [0, 255] to [0, 1].

    EfficientNet may shift pixels to [-1, 1] first (`rescale_offset`), and may divide by the deviation twice
    (`include_top`).
    """
    normalise = values.get("do_normalize", True)
    mean = _three(values["image_mean"] if normalise else 0.0)
    std = _three(values["image_std"] if normalise else 1.0)
    factor = float(values.get("rescale_factor", 1 / 255))
    if values.get("include_top"):
        std = tuple(own * twice for own, twice in zip(std, _three(values["image_std"]), strict=True))
    if values.get("rescale_offset"):
        mean, std, factor = tuple(0.5 + own / 2 for own in mean), tuple(own / 2 for own in std), factor / 2
    return mean, std, factor


def _from_open_clip(values: dict[str, Any]) -> dict[str, Any]:
    """The values of open_clip's `preprocess_cfg.json` or jina-clip's preprocessor, with the keys of transformers."""
    _refuse_unknown(values, OPEN_CLIP_KEYS)
    size, mode, interpolation = values["size"], values.get("resize_mode", "shortest"), values["interpolation"]
    if mode not in ("shortest", "squash"):
        raise ValueError(f"resize_mode must be shortest or squash, got {mode}")
    if interpolation not in ("bicubic", "bilinear"):
        raise ValueError(f"interpolation must be bicubic or bilinear, got {interpolation}")
    if values.get("mode", "RGB") != "RGB":
        raise ValueError(f"mode must be RGB, got {values['mode']}")
    height, width = (size, size) if isinstance(size, int) else size
    if mode == "shortest" and height != width:
        raise ValueError(f"a crop must be square, got {height} x {width}")
    return {
        "size": {"shortest_edge": height} if mode == "shortest" else {"height": height, "width": width},
        "do_center_crop": mode == "shortest",
        "crop_size": {"height": height, "width": width},
        "resample": int(Image.Resampling[interpolation.upper()]),
        "image_mean": values["mean"],
        "image_std": values["std"],
    }


def _three(value: Any) -> tuple[float, ...]:
    values = tuple(float(v) for v in value) if isinstance(value, list | tuple) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError("image_mean and image_std need three values")
    return values
