"""The benchmark's printed table and its chart.

In: the rows of `export.benchmark.measure`. Out: text, and a PNG of recall and speed a model.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt


def format_table(models: dict[str, dict[str, Any]]) -> str:
    """Three blocks with a row a model: recall and parity, speed, and speed relative to torch if torch was measured.

    "Share of rate" is the vision tower's best rate relative to the machine's own rates (`export.benchmark.machine`).
    """
    lines = [
        f"{'':<13}{'image to text':>16}{'text to image':>16}{'mean':>7}{'largest':>10}{'smallest':>10}{'1 % below':>11}"
        f"{'same':>8}{'':>8}",
        f"{'':<13}{'R@1/5/10':>16}{'R@1/5/10':>16}{'':>7}{'differ.':>10}{'cosine':>10}{'cosine':>11}{'top 10':>8}"
        f"{'MB':>8}",
    ]
    for name, row in models.items():
        recalls = [
            "/".join(f"{100 * row[f'{way}_recall@{k}']:.1f}" for k in (1, 5, 10))
            for way in ("image_to_text", "text_to_image")
        ]
        lines.append(
            f"{name:<13}{recalls[0]:>16}{recalls[1]:>16}{100 * row['mean_recall']:>7.2f}"
            f"{row['largest_difference']:>10.1e}{row['smallest_cosine']:>10.5f}"
            f"{min(row['image_cosine_p1'], row['text_cosine_p1']):>11.4f}{100 * row['top_10_overlap']:>7.1f}%"
            f"{row['megabytes']:>8.1f}"
        )
    lines += [
        "",
        f"{'':<13}{'images/s, batch 1/8/32':>26}{'texts/s, batch 1/8/32/64':>30}{'text query':>16}{'image query':>16}"
        f"{'share of rate':>16}{'peak':>8}",
        f"{'':<13}{'':>26}{'':>30}{'p50/p95 ms':>16}{'p50/p95 ms':>16}{'32-bit/8-bit':>16}{'MB':>8}",
    ]
    for name, row in models.items():
        images = " / ".join(f"{row['images_per_s'][size]:.0f}" for size in row["images_per_s"])
        texts = " / ".join(f"{row['texts_per_s'][size]:.0f}" for size in row["texts_per_s"])
        queries = [
            f"{row[f'{kind}_query_p50_ms']:.1f} / {row[f'{kind}_query_p95_ms']:.1f}" for kind in ("text", "image")
        ]
        # only int8 computes in 8 bits, so only int8 has a share of that rate
        of_int8 = f"{100 * row['int8_gemm_share']:.0f}%" if "int8_gemm_share" in row else "-"
        shares = f"{100 * row['gemm_share']:.0f}% / {of_int8}"
        lines.append(
            f"{name:<13}{images:>26}{texts:>30}{queries[0]:>16}{queries[1]:>16}"
            f"{shares:>16}{row['peak_memory_mb']:>8.0f}"
        )
    if "torch" in models:
        lines += ["", f"{'times torch':<13}{'images, batch 1/8/32':>26}{'texts, batch 1/8/32/64':>30}"]
        for name, row in models.items():
            images, texts = (
                " / ".join(f"{rate / models['torch'][kind][size]:.2f}" for size, rate in row[kind].items())
                for kind in ("images_per_s", "texts_per_s")
            )
            lines.append(f"{name:<13}{images:>26}{texts:>30}")
    return "\n".join(lines)


def draw_chart(models: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Mean recall beside images and texts a second, one bar a model."""
    names = list(models)
    panels = {
        "mean recall, %": [100 * models[name]["mean_recall"] for name in names],
        "images/s, batch 8": [models[name]["images_per_s"]["8"] for name in names],
        "texts/s, batch 64": [models[name]["texts_per_s"]["64"] for name in names],
        "text query, p50 ms": [models[name]["text_query_p50_ms"] for name in names],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.2), layout="constrained")
    for panel, (label, values) in zip(axes, panels.items(), strict=True):
        bars = panel.bar(names, values, color=[f"C{number}" for number in range(len(names))])
        panel.bar_label(bars, fmt="{:.3g}", fontsize=8)
        panel.set_title(label, fontsize=10)
        panel.tick_params(axis="x", labelrotation=35, labelsize=8)
        panel.margins(y=0.15)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
