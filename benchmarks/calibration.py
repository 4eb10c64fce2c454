"""Check match probabilities: expected calibration error of the ten best hits, by source, and a reliability diagram.

python -m benchmarks.calibration --bundle BUNDLE --data A B C [--split val test] [--chart FILE.png] [--words FILE]

It measures on the images that `miniclip calibrate --half` leaves out. It also counts the queries with the answer
"nothing matches": captions, words for objects in at least five images, and words for objects in no image. The last
column is the mean average precision of one-word searches.
"""

from pathlib import Path

import numpy as np

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.evaluation.calibrate_bundle import judge_sources
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle
from miniclip.inference.judged_queries import RIGHT, UNKNOWN, WRONG, JudgedQueries
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.score_calibration import ScoreCalibration, best_hits, shifted

BINS = 10
MIN_SHOWN = 5  # images that match a word


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.calibration", description="Check match probabilities.")
    parser.add_argument("--bundle", required=True, help="calibrated bundle")
    parser.add_argument("--data", nargs="+", required=True, help="captions, one source each")
    parser.add_argument("--split", nargs="+", default=["val"], help="splits to measure on (default val)")
    parser.add_argument("--words", type=Path, help="file with one word per line (default: the words of all captions)")
    parser.add_argument("--chart", type=Path, help="draw the reliability diagram into this file")
    arguments = parser.parse_args()
    bundle = Bundle.open(find_bundle(arguments.bundle))
    match = bundle.match
    if match is None:
        raise MiniClipError(f"{bundle.folder} is not calibrated; run miniclip calibrate first")
    encoders = OnnxEncoders(bundle, "cpu")
    tables = [read_captions(name) for name in arguments.data]
    curves = {}
    words = arguments.words.read_text(encoding="utf-8").splitlines() if arguments.words else None
    judged = judge_sources(tables, arguments.split, encoders, part=1, words=words)
    for name, own in zip(arguments.data, judged, strict=True):
        scores, is_right = best_hits(own, np.asarray(match.offset))
        likely = match.probability(scores)
        curves[Path(name).name] = likely, is_right
        line = f"{Path(name).name:<24} ECE {expected_calibration_error(likely, is_right):.3f}"
        line += f"  nothing matches: {_silent(own.text_embeds, own, match, own.relation, 1)} captions"
        if own.words is not None:
            for label, least in (("shown", MIN_SHOWN), ("absent", 0)):
                line += f", {_silent(own.words.text_embeds, own, match, own.words.relation, least)} {label} words"
            line += f"; mean average precision of shown words: {word_precision(own):.3f}"
        print(line)
    if arguments.chart:
        draw(curves, arguments.chart)
    return 0


def _silent(texts: np.ndarray, own: JudgedQueries, match: ScoreCalibration, relation: np.ndarray, least: int) -> str:
    """Count the queries with at least `least` correct images (for 0: with no correct image) that get no match."""
    right = (relation == RIGHT).sum(axis=1)
    chosen = right >= least if least else (relation == WRONG).all(axis=1)
    best = (texts[chosen] @ own.image_embeds.T).max(axis=1, initial=-1.0)
    silent = match.probability(shifted(best, texts[chosen], np.asarray(match.offset))) < match.cutoff_probability(
        len(own.image_embeds)
    )
    return f"{silent.sum():,} of {len(silent):,}"


def word_precision(own: JudgedQueries) -> float:
    """Mean average precision over the words that at least `MIN_SHOWN` images show; NaN if there is none."""
    assert own.words is not None
    found = []
    for text_embed, relation in zip(own.words.text_embeds, own.words.relation, strict=True):
        is_right = relation[relation != UNKNOWN] == RIGHT
        if is_right.sum() >= MIN_SHOWN:
            order = np.argsort(-(own.image_embeds[relation != UNKNOWN] @ text_embed), kind="stable")
            precision = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
            found.append(precision[is_right[order]].mean())
    return float(np.mean(found)) if found else float("nan")


def binned(likely: np.ndarray, is_right: np.ndarray) -> list[tuple[float, float, float]]:
    """For every non-empty bin: mean probability, share of correct hits, and share of all hits."""
    place = np.minimum((likely * BINS).astype(int), BINS - 1)
    bins = [place == own for own in range(BINS) if (place == own).any()]
    return [(float(likely[own].mean()), float(is_right[own].mean()), float(own.mean())) for own in bins]


def expected_calibration_error(likely: np.ndarray, is_right: np.ndarray) -> float:
    """C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3."""
    return sum(weight * abs(mean - share) for mean, share, weight in binned(likely, is_right))


def draw(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw the reliability diagram."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, (likely, is_right) in curves.items():
        points = binned(likely, is_right)
        error = expected_calibration_error(likely, is_right)
        label = f"{name} (ECE {error:.3f})"
        axes.plot([point[0] for point in points], [point[1] for point in points], marker="o", markersize=3, label=label)
    axes.set(xlabel="match probability", ylabel="share of correct hits", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    run_command(main)
