"""Models on the Hugging Face hub that MiniCLIP opens by name, with measurements published by others.

Recall and accuracy are zero-shot and were published by `source`, not measured here. Sizes are those of both towers'
files on the hub. The layout of each is tested with a replica (`tests/contract/test_layouts.py`).
"""

from dataclasses import dataclass

OPEN_CLIP = "open_clip, docs/openclip_retrieval_results.csv and docs/openclip_results.csv"


@dataclass(frozen=True)
class KnownModel:
    """Figures in percent; None if no source was found."""

    name: str
    licence: str
    languages: str
    parameters_m: int  # millions, both towers
    source: str
    megabytes: dict[str, int]  # by precision
    flickr30k_recall_at_1: tuple[float, float] | None = None  # image to text, text to image
    imagenet: float | None = None  # top-1 accuracy


ON_HUB = (
    KnownModel(
        name="Xenova/clip-vit-base-patch32",
        licence="MIT",
        languages="English",
        parameters_m=151,
        source=OPEN_CLIP,
        megabytes={"fp32": 606, "int8": 154},
        flickr30k_recall_at_1=(78.9, 58.8),
        imagenet=63.3,
    ),
    KnownModel(
        name="immich-app/ViT-B-32__laion2b-s34b-b79k",
        licence="MIT",
        languages="English",
        parameters_m=151,
        source=OPEN_CLIP,
        megabytes={},
        flickr30k_recall_at_1=(84.1, 66.8),
        imagenet=66.6,
    ),
    KnownModel(
        name="Xenova/clip-vit-large-patch14",
        licence="MIT",
        languages="English",
        parameters_m=428,
        source=OPEN_CLIP,
        megabytes={"fp32": 1715, "int8": 432},
        flickr30k_recall_at_1=(85.2, 65.0),
        imagenet=75.5,
    ),
    KnownModel(
        name="Xenova/siglip-base-patch16-224",
        licence="Apache 2.0",
        languages="English",
        parameters_m=203,
        source=OPEN_CLIP,
        megabytes={"fp32": 813, "int8": 211},
        flickr30k_recall_at_1=(89.1, 74.7),
    ),
    KnownModel(
        name="onnx-community/siglip2-base-patch16-224-ONNX",
        licence="Apache 2.0",
        languages="many",
        parameters_m=375,
        source="SigLIP 2, arXiv 2502.14786",
        megabytes={"fp16": 751},
        imagenet=78.2,
    ),
    KnownModel(
        name="Xenova/mobileclip_s2",
        licence="Apple, research",
        languages="English",
        parameters_m=99,
        source="model card of apple/MobileCLIP-S2",
        megabytes={"fp32": 397, "int8": 101},
        imagenet=74.4,
    ),
    KnownModel(
        name="hf:plhery/mobileclip2-onnx/onnx/s0",
        licence="Apple, research",
        languages="English",
        parameters_m=75,
        source="model card of apple/MobileCLIP2-B",
        megabytes={},
        imagenet=71.5,
    ),
)
