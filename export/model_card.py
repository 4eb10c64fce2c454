"""The bundle's README.md: a description of the model, and its certificate after a benchmark.

In: the run's config and metrics, and the certificate of `export.benchmark`. Out: a model card for people.
"""

from pathlib import Path
from typing import Any

from miniclip.files import replace_atomically
from miniclip.inference.precision import file_endings
from miniclip.models.config import Config
from miniclip.models.hub import public_name

from .benchmark.machine import Machine

HEAD = """---
library_name: transformers.js
pipeline_tag: zero-shot-image-classification # the hub's task for an image tower beside a text tower, as CLIP's
tags:
- miniclip
- clip
- onnx
- image-text-retrieval
---

# {name}

A dual encoder of images and text, made with MiniCLIP. Its image tower is `{vision}`, its text tower `{text}`.
Embeddings have {dim} dimensions and unit length, so their dot product is the cosine similarity.

    miniclip index PICTURES --bundle {name} --out index/images
    miniclip search "a dog in the snow" --index index/images

The files have the layout of Hugging Face and transformers.js. The folder `onnx/` has both towers in the precisions that
were exported: {files}.

transformers.js opens the folder with `CLIPTextModelWithProjection` and `CLIPVisionModelWithProjection`. It removes the
end token of a text that is longer than the limit in `tokenizer_config.json`, so shorten such a text first. On CPUs
without VNNI, int8 is exact only if onnxruntime's `session.x64quantprecision` is 1. MiniCLIP sets this option itself; in
transformers.js, pass `session_options: {{ extra: {{ session: {{ x64quantprecision: "1" }} }} }}`.

"""


def write_card(folder: Path, config: Config, metrics: dict[str, float], certificate: dict[str, Any] | None) -> None:
    """Write `README.md`; without a certificate it says how to make one. Errors as in `replace_atomically`."""
    model = config.model
    head = HEAD.format(
        name=folder.name if certificate else "BUNDLE",
        vision=public_name(model.vision),
        text=public_name(model.text),
        dim=model.projection_dim,
        files=file_endings(),
    )
    text = head + _certificate_section(certificate)
    if "mean_recall" in metrics:
        recall = 100 * metrics["mean_recall"]
        text += f"\nMean recall of the trained run, in PyTorch, on its validation split: {recall:.1f} % (karpathy).\n"
    replace_atomically(folder / "README.md", lambda partial: partial.write_text(text, encoding="utf-8"))


def _certificate_section(certificate: dict[str, Any] | None) -> str:
    if certificate is None:
        return (
            "## Certificate\n\nNot measured yet: `python -m export.benchmark --run RUN --bundle BUNDLE --data PATH`.\n"
        )
    lines = [
        "## Certificate",
        "",
        f"Measured on {certificate['data']}, split {certificate['split']} ({certificate['images']:,} images, "
        f"{certificate['captions']:,} captions), protocol {certificate['protocol']}, against the PyTorch model.",
        "",
        "| | mean recall | cosine to torch, smallest / 1st percentile | images/s, batch 1 / 8 / 32 "
        "| texts/s, batch 64 | text query, p50 / p95 | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in certificate["models"].items():
        images = " / ".join(f"{row['images_per_s'][size]:.0f}" for size in ("1", "8", "32"))
        lines.append(
            f"| {name} | {100 * row['mean_recall']:.2f} % "
            f"| {row['smallest_cosine']:.4f} / {min(row['image_cosine_p1'], row['text_cosine_p1']):.4f} "
            f"| {images} | {row['texts_per_s']['64']:.0f} "
            f"| {row['text_query_p50_ms']:.1f} / {row['text_query_p95_ms']:.1f} ms | {row['megabytes']:.1f} |"
        )
    lines += [
        "",
        "`torch-reuse` keeps freed memory between layers, and `torch-bf16` computes in bfloat16. A text query runs "
        "from the words to the ten best of 10,000 images.",
        "",
        f"The machine: {Machine(**certificate['machine'])}, measured in the same run.",
        "",
        "    python -m export.benchmark --run RUN --bundle BUNDLE --data "
        f"{certificate['data']} --split {certificate['split']}",
    ]
    return "\n".join(lines) + "\n"
