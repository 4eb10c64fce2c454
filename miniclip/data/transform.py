"""Resize and normalise an RGB image to the `pixel_values` of a vision tower.

In: an RGB image and `preprocessor_config.json`. Out: `(3, H, W)` float32.

Two dialects of that file are read: that of transformers, and that of open_clip and jina-clip (`size`, `resize_mode`,
`interpolation`, `mean`, `std`). A key of neither is refused, since an ignored one gives wrong embeddings in silence.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniclip.data.images import ImageSource, open_image
from miniclip.errors import MiniClipError

# what transformers writes beside the keys that are read: it changes no pixel
SAYS_NOTHING = (
    "auto_map", "data_format", "default_to_square", "device", "disable_grouping", "feature_extractor_type",
    "image_processor_class", "image_processor_type", "image_seq_length", "input_data_format", "processor_class",
    "return_tensors", "use_square_size", "_valid_processor_keys", "transformers_version", "use_fast",
)  # fmt: skip
READ = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb",
)  # fmt: skip
READ_OF_OPEN_CLIP = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class ImageTransform:
    """Resize and normalise, as a bundle's `preprocessor_config.json` says it.

    Without a crop the image is squashed to `height_px` x `width_px` (as SigLIP does): nothing of it is cut off.
    With `resize_shortest_px`, the shorter edge is resized to that and the centre is cropped (as CLIP does).
    """

    height_px: int
    width_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = int(Image.Resampling.BICUBIC)
    resize_shortest_px: int | None = None

    def fit(self, image: Image.Image) -> Image.Image:
        """RGB image -> RGB image of the size that the tower sees."""
        # reducing_gap lets Pillow shrink a large image in two steps: same look, a fraction of the time
        if self.resize_shortest_px is None:
            return image.resize((self.width_px, self.height_px), self.resample, reducing_gap=2.0)
        image = self._without_far_ends(image)
        width, height = (edge * self.resize_shortest_px // min(image.size) for edge in image.size)  # CLIP rounds down
        image = image.resize((width, height), self.resample, reducing_gap=2.0)
        left, top = (width - self.width_px) // 2, (height - self.height_px) // 2
        return image.crop((left, top, left + self.width_px, top + self.height_px))

    def _without_far_ends(self, image: Image.Image) -> Image.Image:
        """Cut a strip to the middle that the crop keeps: enlarged whole, 1 x 100,000 pixels would fill the memory."""
        longest = 8 * min(image.size) * max(1, self.min_size_px // (self.resize_shortest_px or 1))
        if max(image.size) <= longest:
            return image
        width, height = (min(edge, longest) for edge in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB image -> `pixel_values` (3, H, W) float32."""
        scale, offset = self.affine()
        # channels first while they are bytes: the arithmetic then runs along memory, and no float32 is copied
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
        """The size below which a reduced-scale JPEG decode would lose detail that the tower sees."""
        return max(self.height_px, self.width_px, self.resize_shortest_px or 0)

    def load(self, source: ImageSource) -> np.ndarray:
        """Path or bytes -> `pixel_values` (3, H, W) float32; `MiniClipError` when it cannot be read."""
        return self(open_image(source, self.min_size_px))

    def to_dict(self) -> dict[str, Any]:
        """The Hugging Face `CLIPImageProcessor` form, which transformers and transformers.js read too."""
        size: dict[str, int] = {"height": self.height_px, "width": self.width_px}
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": size if self.resize_shortest_px is None else {"shortest_edge": self.resize_shortest_px},
            "resample": self.resample,
            "do_center_crop": self.resize_shortest_px is not None,
            "crop_size": size,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
        }

    @classmethod
    def from_file(cls, path: Path) -> "ImageTransform":
        """Read a `preprocessor_config.json`; `MiniClipError` when it is missing or says something unknown."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError("it is not a JSON object")
            if "resize_mode" in values or "mean" in values:
                values = _from_open_clip(values)
            _refuse_unknown(values, READ)
            size = values["size"]
            crop = values.get("crop_size") if values.get("do_center_crop") else None
            shortest = None
            if isinstance(size, int):  # older files: CLIP crops what it has resized, ViT squashes
                size = {"shortest_edge": size} if crop else {"height": size, "width": size}
            if isinstance(crop, int):
                crop = {"height": crop, "width": crop}
            if "shortest_edge" in size:
                shortest = int(size["shortest_edge"])
                if crop is None:
                    raise KeyError("crop_size")
            final = crop or size
            normalise = values.get("do_normalize", True)
            transform = cls(
                height_px=int(final["height"]),
                width_px=int(final["width"]),
                mean=_three(values["image_mean"] if normalise else 0.0),
                std=_three(values["image_std"] if normalise else 1.0),
                resample=int(values.get("resample", Image.Resampling.BICUBIC)),
                resize_shortest_px=shortest,
            )
            if not values.get("do_resize", True):
                raise ValueError("do_resize is false, and a tower takes images of one size")
            transform._check(float(values.get("rescale_factor", 1 / 255)), bool(values.get("do_rescale", True)))
            return transform
        except OSError as error:
            raise MiniClipError(f"cannot read {path}: {error.strerror}") from error
        except KeyError as error:
            raise MiniClipError(
                f"{path} is not an image preprocessor that MiniCLIP knows (it lacks {error})"
            ) from error
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise MiniClipError(f"{path} is not an image preprocessor that MiniCLIP knows ({error})") from error

    def _check(self, rescale_factor: float, do_rescale: bool) -> None:
        """`ValueError` for a value that cannot work, or that this class would not honour."""
        for edge in (self.height_px, self.width_px, self.resize_shortest_px or 1):
            if not 1 <= edge <= 4096:
                raise ValueError(f"the size must be from 1 to 4096 pixels, got {edge}")
        Image.Resampling(self.resample)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and min(self.std) > 0):
            raise ValueError("image_mean must be finite and image_std above 0")
        if not do_rescale or abs(rescale_factor * 255 - 1) > 1e-3:
            raise ValueError("pixels are scaled by 1/255 and by nothing else")


def _refuse_unknown(values: dict[str, Any], known: tuple[str, ...]) -> None:
    """`ValueError` for a key that could change pixels and is not read. Null, false and empty ones change nothing."""
    unknown = [key for key in values if key not in known and key not in SAYS_NOTHING and values[key]]
    if unknown:
        raise ValueError(f"it says {', '.join(sorted(unknown))}, which MiniCLIP does not do")


def _from_open_clip(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of open_clip's `preprocess_cfg.json` and jina-clip's preprocessor, as transformers names them."""
    _refuse_unknown(values, READ_OF_OPEN_CLIP)
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
