"""Export a run and check that each precision, on each device, retrieves as well as PyTorch.

In: a run and images that it was not trained on. Out: a bundle, and lines of the table.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.gpu.processes import run_module
from benchmarks.gpu.rates import seconds_of
from benchmarks.gpu.table import Table
from benchmarks.node_profile import profile_nodes
from export.benchmark.__main__ import parity_failures
from export.benchmark.measure import quality
from miniclip.data.captions import read_captions
from miniclip.evaluation.evaluate import embed_split
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.providers import CPU, CUDA, open_session, session_options
from miniclip.models.checkpoint import load_run
from miniclip.models.device import choose_device

MIN_EXTREME_COSINE = 0.99  # between fp16 and fp32, on artificial images
SPEED_BATCH = 64


def export_run(run: Path, bundle: Path) -> None:
    """Run `python -m export` in fp32 and fp16; `MiniClipError` with its last line if it fails."""
    arguments = ["--run", str(run), "--out", str(bundle), "--precision", "fp32", "fp16"]
    run_module(f"exporting {run.name}", "export", *arguments)


def check_recall(run: Path, bundle: Path, data: Path, devices: list[str], table: Table) -> None:
    """Compare Recall@K and embeddings of every precision and device with those of PyTorch on each device."""
    scenes = read_captions(data).split("val", "test")
    embeds = {}
    for device in devices:
        encoders = load_run(run).encoders(device=choose_device(device, autocast=False, tf32=False))
        embeds[device] = embed_split(encoders, scenes, f"torch on {device}")
    images = len(scenes.image_paths)
    for device in devices:
        rows = {"torch": quality(embeds["cpu"], embeds["cpu"], "karpathy")}
        if device != "cpu":
            rows["fp32"] = quality(embeds[device], embeds["cpu"], "karpathy")
            add_parity(table, "torch", device, rows, images)
        for precision in ("fp32", "fp16"):
            onnx = OnnxEncoders(Bundle.open(bundle), device, precision, strict=True, exact=True)
            own = embed_split(onnx, scenes, f"{precision} on {device}")
            for reference in devices if device == "cuda" else ["cpu"]:
                torch_row = quality(embeds[reference], embeds[reference], "karpathy")
                compared = {"torch": torch_row, precision: quality(own, embeds[reference], "karpathy")}
                add_parity(table, precision, f"{device} against torch on {reference}", compared, images)


def add_parity(table: Table, name: str, where: str, rows: dict[str, dict[str, float]], images: int) -> None:
    """Add a line that compares the other row of `rows` with that of `torch`."""
    (own,) = (row for key, row in rows.items() if key != "torch")
    failures = parity_failures(rows, images)
    change = own["mean_recall"] - rows["torch"]["mean_recall"]
    table.add(
        f"{name} on {where}",
        f"mean recall {own['mean_recall']:.4f} ({change:+.4f})",
        failures[0] if failures else f"embeddings {own['largest_difference']:.1e} apart",
        not failures,
        mean_recall=own["mean_recall"], change=change, largest_difference=own["largest_difference"],
        smallest_cosine=own["smallest_cosine"], failures=failures,
    )  # fmt: skip


def check_extremes(bundle: Path, device: str, table: Table) -> None:
    """Check that fp16 embeddings of extreme images and texts are finite, of unit length, and close to fp32."""
    opened = Bundle.open(bundle)
    size = (opened.transform.width_px, opened.transform.height_px)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stripes = np.zeros_like(noise)
    stripes[::2] = 255
    images = [Image.new("RGB", size, (0, 0, 0)), Image.new("RGB", size, (255, 255, 255))]
    images += [Image.fromarray(values) for values in (noise, stripes)]
    pixel_values = np.stack([opened.transform(image) for image in images])
    texts = ["", "a", "a big red circle " * 99, "unknown words only"]
    half, single = (OnnxEncoders(opened, device, precision, strict=True, exact=True) for precision in ("fp16", "fp32"))
    embeds, expected = (
        np.concatenate([encoders.embed_pixels(pixel_values), encoders.encode_texts(texts)])
        for encoders in (half, single)
    )
    is_finite = bool(np.isfinite(embeds).all()) and np.allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-3)
    cosine = float((embeds * expected).sum(axis=1).min())
    table.add(
        f"fp16 on {device}: black, white, noise, longest text",
        f"{'finite' if is_finite else 'NOT FINITE'}, cosine to fp32 {cosine:.4f}",
        f"finite, at least {MIN_EXTREME_COSINE}",
        is_finite and cosine >= MIN_EXTREME_COSINE,
        finite=is_finite, smallest_cosine=cosine,
    )  # fmt: skip


def measure_towers(bundle: Path, device: str, table: Table) -> None:
    """Measure decoded images and texts per second in each precision; on a GPU also without channels-last layout."""
    opened = Bundle.open(bundle)
    pixel_values = np.random.default_rng(0).standard_normal(
        (SPEED_BATCH, 3, opened.transform.height_px, opened.transform.width_px), dtype=np.float32
    )
    texts = ["a big red circle left of a small blue square on green"] * SPEED_BATCH
    for precision in ("fp32", "fp16") if device == "cuda" else ("fp32",):
        encoders = OnnxEncoders(opened, device, precision, strict=True)
        images_per_s = SPEED_BATCH / seconds_of(lambda own=encoders: own.embed_pixels(pixel_values), "cpu")  # type: ignore[misc]
        texts_per_s = SPEED_BATCH / seconds_of(lambda own=encoders: own.encode_texts(texts), "cpu")  # type: ignore[misc]
        table.add(
            f"full size, {precision} on {device}",
            f"{images_per_s:,.0f} images/s, {texts_per_s:,.0f} texts/s",
            images_per_s=images_per_s, texts_per_s=texts_per_s,
        )  # fmt: skip
    if device == "cuda":
        for tower, feeds in (("vision", {"pixel_values": pixel_values}), ("text", token_feeds(opened, texts))):
            count, on_cpu = nodes_on_cpu(opened.model_path(tower, "fp16"), feeds)
            table.add(
                f"full size, fp16: {tower} nodes left on the CPU",
                f"{sum(on_cpu.values())} of {count}",
                ", ".join(f"{number} {kind}" for kind, number in on_cpu.most_common(4)),
                nodes=count, on_cpu=dict(on_cpu),
            )  # fmt: skip
        session = open_session(opened.model_path("vision", "fp16"), session_options(), (CUDA, CPU))
        images_per_s = SPEED_BATCH / seconds_of(lambda: session.run(None, {"pixel_values": pixel_values}), "cpu")
        table.add("full size, fp16 on cuda, prefer_nhwc=0", f"{images_per_s:,.0f} images/s", images_per_s=images_per_s)


def token_feeds(bundle: Bundle, texts: list[str]) -> dict[str, np.ndarray]:
    input_ids, attention_mask = bundle.tokenizer(texts)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def nodes_on_cpu(model: Path, feeds: dict[str, np.ndarray]) -> tuple[int, Counter[str]]:
    """The number of nodes that a graph executes, and the CPU nodes among them, counted by operator."""
    events = profile_nodes(
        lambda options: open_session(model, options, (CUDA, CPU), half_convolutions=True), session_options(), feeds
    )
    nodes = [event["args"] for event in events]
    return len(nodes), Counter(node["op_name"] for node in nodes if node["provider"] == CPU)
