"""Parity and speed of every precision against PyTorch: the certificate.

python -m export.benchmark --run runs/NAME --bundle bundles/NAME --data PATH --split test --json FILE

In: a run, the bundle made from it, captions. Out: one table, JSON, and the certificate in the bundle. Exit status 1
when a precision's recalls leave its tolerance: 0.001 for fp32, 0.002 for fp16, 0.01 for int8.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from export.card import write_card
from miniclip.bundle import TOWERS, Bundle, list_files, onnx_name, write_json
from miniclip.captions import check_skipped, read_captions
from miniclip.checkpoint import Run, load_run
from miniclip.encoders import DualEncoders, OnnxEncoders
from miniclip.errors import ArgumentParser, MiniClipError, run_command
from miniclip.evaluation import SplitEmbeds, embed_split
from miniclip.retrieval import Gallery

TOLERANCE = {"fp32": 0.001, "fp16": 0.002, "int8": 0.01}
TIMED_S = 2.0  # each speed is measured for about this long


def parse_arguments() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m export.benchmark", description="Prove that a bundle retrieves like its run."
    )
    parser.add_argument("--run", required=True, type=Path, help="run folder")
    parser.add_argument("--bundle", required=True, type=Path, help="bundle exported from it")
    parser.add_argument("--data", required=True, help="captions: a folder, a caption file, hf:USER/NAME, or openmoji")
    parser.add_argument("--split", default="test", help="train | val (dev) | test | all (default test)")
    parser.add_argument("--protocol", default="karpathy", help="karpathy | paired (default karpathy)")
    parser.add_argument("--provider", default="auto", help="auto | cuda | cpu")
    parser.add_argument("--allow-missing", action="store_true", help="go on when more than 5 %% of the rows are lost")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    return parser


def main() -> int:
    arguments = parse_arguments().parse_args()
    run, bundle = load_run(arguments.run), Bundle.open(arguments.bundle)
    table = read_captions(arguments.data, seed=run.config.data.seed).split(arguments.split)

    reference = run.encoders()
    torch_embeds = embed_split(reference, table, "torch")
    check_skipped(torch_embeds.table, arguments.allow_missing)
    models = {"torch": measure(reference, torch_embeds, torch_embeds, arguments.protocol)}
    models["torch"]["megabytes"] = (run.folder / "model.safetensors").stat().st_size / 1e6
    for precision in bundle.precisions:
        encoders = OnnxEncoders(bundle, arguments.provider, precision)
        embeds = embed_split(encoders, table, precision)
        models[precision] = measure(encoders, embeds, torch_embeds, arguments.protocol)
        sizes = [(bundle.folder / onnx_name(tower, precision)).stat().st_size for tower in TOWERS]
        models[precision]["megabytes"] = sum(sizes) / 1e6
        models[precision]["providers"] = list(encoders.providers)

    result = {
        "data": Path(arguments.data).name,
        "split": arguments.split,
        "protocol": arguments.protocol,
        "images": len(torch_embeds.table.image_paths),
        "captions": len(torch_embeds.table.captions),
        "fingerprint": bundle.fingerprint,
        "models": models,
    }
    failures = parity_failures(models)
    result["passed"] = not failures
    print(format_table(models))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, result)
    if failures:
        for failure in failures:
            print(f"parity failed: {failure}")
        return 1
    certify(bundle, run, result)
    print(f"every precision retrieves like torch; the certificate is in {bundle.folder / 'manifest.json'}")
    return 0


def measure(encoders: DualEncoders, embeds: SplitEmbeds, reference: SplitEmbeds, protocol: str) -> dict[str, Any]:
    """Recalls, distance from the reference embeddings, and speed of one pair of encoders."""
    if embeds.table.image_paths != reference.table.image_paths:
        raise MiniClipError("a picture became unreadable during the benchmark; run it again")
    pairs = [(embeds.image_embeds, reference.image_embeds), (embeds.text_embeds, reference.text_embeds)]
    return {
        **embeds.recalls(protocol),
        "largest_difference": float(max(np.abs(ours - theirs).max() for ours, theirs in pairs)),
        "smallest_cosine": float(min((ours * theirs).sum(axis=1).min() for ours, theirs in pairs)),
        **measure_speed(encoders, embeds),
    }


def measure_speed(encoders: DualEncoders, embeds: SplitEmbeds) -> dict[str, float]:
    """Pictures a second (8 at a time, decoded already), texts a second (64 at a time), ms from words to the top 10."""
    pixel_values = np.stack([encoders.transform.load(path) for path in embeds.table.image_paths[:8]])
    texts = embeds.table.captions[:64]
    gallery = Gallery(embeds.image_embeds, getattr(encoders, "providers", ("CPUExecutionProvider",)))

    def query() -> None:
        gallery.top_k(encoders.encode_texts(texts[:1]), 10)

    return {
        "images_per_s": len(pixel_values) / _median_seconds(lambda: encoders.embed_pixels(pixel_values)),
        "texts_per_s": len(texts) / _median_seconds(lambda: encoders.encode_texts(texts)),
        "query_ms": 1000 * _median_seconds(query),
    }


def _median_seconds(work: Any) -> float:
    work()
    seconds: list[float] = []
    while sum(seconds) < TIMED_S or len(seconds) < 3:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def parity_failures(models: dict[str, dict[str, Any]]) -> list[str]:
    """Which recall of which precision is further from torch's than that precision may be."""
    failures = []
    for precision, row in models.items():
        for name, value in row.items():
            if precision not in TOLERANCE or "recall" not in name:
                continue
            difference = abs(value - models["torch"][name])
            if difference > TOLERANCE[precision] + 1e-9:
                failures.append(f"{precision} {name} differs by {difference:.4f}, allowed {TOLERANCE[precision]}")
    return failures


def format_table(models: dict[str, dict[str, Any]]) -> str:
    """The printed table, one row a model."""
    header = (
        f"{'':<7}{'image to text':>16}{'text to image':>16}{'mean':>7}{'largest':>10}{'smallest':>10}"
        f"{'pictures':>10}{'texts':>8}{'ms a':>7}{'':>8}\n"
        f"{'':<7}{'R@1/5/10':>16}{'R@1/5/10':>16}{'':>7}{'differ.':>10}{'cosine':>10}{'/s':>10}{'/s':>8}{'query':>7}{'MB':>8}"
    )
    lines = [header]
    for name, row in models.items():
        image_to_text, text_to_image = (
            "/".join(f"{100 * row[f'{way}_recall@{k}']:.1f}" for k in (1, 5, 10))
            for way in ("image_to_text", "text_to_image")
        )
        lines.append(
            f"{name:<7}{image_to_text:>16}{text_to_image:>16}{100 * row['mean_recall']:>7.2f}"
            f"{row['largest_difference']:>10.1e}{row['smallest_cosine']:>10.5f}{row['images_per_s']:>10.0f}{row['texts_per_s']:>8.0f}{row['query_ms']:>7.1f}"
            f"{row['megabytes']:>8.1f}"
        )
    return "\n".join(lines)


def certify(bundle: Bundle, run: Run, result: dict[str, Any]) -> None:
    """Put the measured result into the bundle's manifest and README."""
    manifest = dict(bundle.manifest)
    if not manifest:
        return
    manifest["certificate"] = result
    write_card(bundle.folder, run.config, run.metrics, result)
    write_json(bundle.folder / "manifest.json", {**manifest, "files": list_files(bundle.folder)})


if __name__ == "__main__":
    run_command(main)
