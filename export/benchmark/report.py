"""The benchmark's printed table and its chart.

In: the rows of `export.benchmark.measure`. Out: text, and a PNG with the recall and speed of each model.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

from miniclip.evaluation.text_table import text_table

KINDS = ("images_per_s", "texts_per_s")


def format_table(models: dict[str, dict[str, Any]]) -> str:
    """Three tables with one row per model: recall and parity, speed, and, if torch was measured, speed relative to it.

    "Share of rate" is the vision tower's best rate relative to the machine's rates (`export.benchmark.machine`).
    """
    quality = [
        ["", "image to text", "text to image", "mean", "largest", "smallest", "1 % below", "same", ""],
        ["", "R@1/5/10", "R@1/5/10", "", "differ.", "cosine", "cosine", "top 10", "MB"],
    ]
    sizes = ["images/s, batch 1/8/32", "texts/s, batch 1/8/32/64"]
    speed = [
        ["", *sizes, "text query", "image query", "share of rate", "peak"],
        ["", "", "", "p50/p95 ms", "p50/p95 ms", "32-bit/8-bit", "MB"],
    ]
    relative = [["times torch", "images, batch 1/8/32", "texts, batch 1/8/32/64"]]
    for name, row in models.items():
        recalls = [
            "/".join(f"{100 * row[f'{way}_recall@{k}']:.1f}" for k in (1, 5, 10))
            for way in ("image_to_text", "text_to_image")
        ]
        quality.append(
            [
                name,
                *recalls,
                f"{100 * row['mean_recall']:.2f}",
                f"{row['largest_difference']:.1e}",
                f"{row['smallest_cosine']:.5f}",
                f"{min(row['image_cosine_p1'], row['text_cosine_p1']):.4f}",
                f"{100 * row['top_10_overlap']:.1f}%",
                f"{row['megabytes']:.1f}",
            ]
        )
        rates = [" / ".join(f"{rate:.0f}" for rate in row[kind].values()) for kind in KINDS]
        queries = [
            f"{row[f'{kind}_query_p50_ms']:.1f} / {row[f'{kind}_query_p95_ms']:.1f}" for kind in ("text", "image")
        ]
        # only int8 computes in 8 bits, so only int8 has a share of that rate
        of_int8 = f"{100 * row['int8_gemm_share']:.0f}%" if "int8_gemm_share" in row else "-"
        shares = f"{100 * row['gemm_share']:.0f}% / {of_int8}"
        speed.append([name, *rates, *queries, shares, f"{row['peak_memory_mb']:.0f}"])
        if "torch" in models:
            times = [
                " / ".join(f"{rate / models['torch'][kind][size]:.2f}" for size, rate in row[kind].items())
                for kind in KINDS
            ]
            relative.append([name, *times])
    blocks = [quality, speed] + ([relative] if "torch" in models else [])
    return "\n\n".join(map(text_table, blocks))


def draw_chart(models: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Draw mean recall and speeds, with one bar per model."""
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
