"""The commands as a user runs them: their output, their files, and one line for every mistake.

Each command runs once, in this process, when the first test needs its outcome.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import HELP, MISTAKES, Outcome, outcome, place, succeeded

__all__ = ["outcome", "place"]  # fixtures

RECALLS = {f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_exit_2_and_one_line_with_the_fix(name: str, outcome: Outcome) -> None:
    done = outcome(name)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert re.search(MISTAKES[name][1], done.stderr), done.stderr
    assert "Traceback" not in done.stdout


def test_mistakes_leave_no_incomplete_folder(place: dict[str, Path], outcome: Outcome) -> None:
    for name in MISTAKES:
        outcome(name)
    assert [path.name for path in (place["tmp"] / "notes").iterdir()] == ["diary.txt"]
    for name in ("i1", "i2", "i4", "i5", "new_run"):
        assert not (place["tmp"] / name).exists(), name


@pytest.mark.parametrize("name", HELP)
def test_help_names_every_flag_of_the_contract(name: str, outcome: Outcome) -> None:
    done = outcome(f"{name} --help")
    assert (done.returncode, done.stderr) == (0, "")
    assert [word for word in HELP[name].split() if word not in done.stdout] == []


def test_search_prints_one_line_per_image_best_first(place: dict[str, Path], outcome: Outcome) -> None:
    lines = [line.split("\t") for line in succeeded(outcome("search")).splitlines()]
    assert len(lines) == 5
    assert all(Path(path).parent == place["data"].resolve() for _, path, *_ in lines)
    assert all(0 < float(probability) < 1 for _, _, probability, *_ in lines)
    assert Path(lines[0][1]).name == "red-circle-0.png"
    scores = [float(line.split("\t")[0]) for line in succeeded(outcome("search no name")).splitlines()]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)


def test_search_json_is_one_object_with_the_same_results(outcome: Outcome) -> None:
    found = json.loads(succeeded(outcome("search --json")))
    assert set(found) == {"query", "results", "captions", "nothing_matches", "calibrated", "missing"}
    assert (found["query"], found["calibrated"]) == ("a red circle", True)
    printed = [line.split("\t")[:3] for line in outcome("search").stdout.splitlines()]
    shown = [[f"{hit['score']:.4f}", hit["path"], f"{hit['probability']:.3f}"] for hit in found["results"]]
    assert shown == printed
    keys = {"score", "path", "captions", "probability"}
    assert all(set(hit) - {"by_name"} == keys and len(hit["captions"]) == 2 for hit in found["results"])


def test_search_0_ends_the_same_paths_with_zero_bytes(outcome: Outcome) -> None:
    paths = [line.split("\t")[1] for line in outcome("search").stdout.splitlines()]
    assert succeeded(outcome("search -0")) == "".join(path + "\0" for path in paths)


def test_search_draws_what_it_finds(place: dict[str, Path], outcome: Outcome) -> None:
    succeeded(outcome("search --sheet"))
    sheet = np.asarray(Image.open(place["tmp"] / "sheet.png").convert("RGB"))
    assert sheet.shape[0] > 2 * 144  # seven images are two rows
    assert (sheet[..., 0].astype(int) - sheet[..., 1:].max(axis=2) > 120).any()  # and a red one is among them


def test_composed_search_excludes_minus_folder_and_copies(outcome: Outcome) -> None:
    found = json.loads(succeeded(outcome("search composed")))
    assert found["query"].startswith("red circle | a big red circle | ") and len(found["results"]) == 10
    like = json.loads(succeeded(outcome("search --like")))
    assert len(like["results"]) == 3 and "blue-circle" not in " ".join(hit["path"] for hit in like["results"])


def test_search_matches_shows_only_matches(place: dict[str, Path], outcome: Outcome) -> None:
    from miniclip.inference.bundle import Bundle

    match = Bundle.open(place["bundle"]).match
    assert match is not None
    hits = json.loads(succeeded(outcome("search --matches")))["results"]
    assert 0 < len(hits) < 12
    assert all(hit["probability"] >= match.cutoff_probability(1) - 1e-6 for hit in hits)


def test_duplicates_are_printed_in_groups(outcome: Outcome) -> None:
    groups = json.loads(succeeded(outcome("duplicates --json")))["groups"]
    lines = [line.split("\t") for line in succeeded(outcome("duplicates")).splitlines()]
    assert [[path for number, _, path in lines if int(number) == n] for n in range(1, len(groups) + 1)] == groups
    assert groups and all(len(group) > 1 for group in groups)
    assert {kind for _, kind, _ in lines} == {"first", "similar"}


def test_classify_names_a_label_for_each_image(outcome: Outcome) -> None:
    lines = [line.split("\t") for line in succeeded(outcome("classify")).splitlines()]
    assert len(lines) == 12 and {label for _, label, _ in lines} == {"circle", "square", "red car"}
    one = json.loads(succeeded(outcome("classify --json")))
    (result,) = one["results"]
    assert result["label"] == one["labels"][max(range(2), key=result["probabilities"].__getitem__)]
    assert sum(result["probabilities"]) == pytest.approx(1) and one["skipped"] == []


def test_classify_takes_places_in_storage(place: dict[str, Path], outcome: Outcome) -> None:
    plain = [line.split("\t") for line in succeeded(outcome("classify")).splitlines()]
    stored = [line.split("\t") for line in succeeded(outcome("classify file://")).splitlines()]
    assert stored == [[score, label, f"file://{path}"] for score, label, path in plain]
    (result,) = json.loads(succeeded(outcome("classify one file://")))["results"]
    assert result["path"] == f"file://{place['data']}/blue-circle-0.png"


def test_search_by_an_image_finds_it_and_captions(place: dict[str, Path], outcome: Outcome) -> None:
    found = json.loads(succeeded(outcome("search --image")))
    assert (
        found["results"][0]["path"] == str((place["data"] / "blue-circle-0.png").resolve())
        and len(found["results"]) == 10
    )
    scores = [hit["score"] for hit in found["captions"]]
    assert len(scores) == 10 and scores == sorted(scores, reverse=True)
    few = json.loads(succeeded(outcome("search --image few")))
    assert few["results"] == found["results"][:3] and few["captions"] == found["captions"][:3]


def test_a_query_that_is_not_utf8_is_searched(outcome: Outcome) -> None:
    assert len(json.loads(succeeded(outcome("search not UTF-8")))["results"]) == 10


@pytest.mark.parametrize(
    ("name", "file", "protocol", "precision"),
    [
        ("evaluate", "made/bundle.json", "karpathy", "fp32"),
        ("evaluate paired", "paired.json", "paired", "int8"),
        ("evaluate --run", "run.json", "karpathy", "torch fp32"),
    ],
)
def test_evaluate_writes_the_promised_keys(
    name: str, file: str, protocol: str, precision: str, place: dict[str, Path], outcome: Outcome
) -> None:
    succeeded(outcome(name))
    result = json.loads((place["tmp"] / file).read_text())
    assert RECALLS | {"mean_recall", "protocol", "split", "images", "captions"} <= set(result)
    assert (result["protocol"], result["precision"], result["split"]) == (protocol, precision, "all")
    assert (result["images"], result["captions"]) == (12, 12 if protocol == "paired" else 24)
    assert all(0 <= result[key] <= 1 for key in RECALLS)
    assert result["mean_recall"] == pytest.approx(sum(result[key] for key in RECALLS) / 6)


def test_clip_benchmark_file_has_the_keys_of_clip_benchmark(place: dict[str, Path], outcome: Outcome) -> None:
    """LAION's tool names a retrieval after its results: image retrieval is text to image."""
    succeeded(outcome("evaluate --clip-benchmark"))
    result = json.loads((place["tmp"] / "plain.json").read_text())
    written = json.loads((place["tmp"] / "made/clip_benchmark.json").read_text())
    metrics = written.pop("metrics")
    assert written == {
        "dataset": "shapes",
        "split": "all",
        "model": "tiny",
        "pretrained": "fp32",
        "task": "zeroshot_retrieval",
        "language": "en",
    }
    ways = {"image": "text_to_image", "text": "image_to_text"}
    assert set(metrics) == {f"{found}_retrieval_recall@{k}" for found in ways for k in (1, 5, 10)}
    for found, way in ways.items():
        for k in (1, 5, 10):
            assert metrics[f"{found}_retrieval_recall@{k}"] == result[f"{way}_recall@{k}"]
    assert metrics["image_retrieval_recall@5"] != metrics["text_retrieval_recall@5"]  # otherwise they could be swapped


def test_run_and_its_fp32_bundle_retrieve_alike(place: dict[str, Path], outcome: Outcome) -> None:
    results: list[dict[str, Any]] = []
    for name, file in (("evaluate", "made/bundle.json"), ("evaluate --run", "run.json")):
        succeeded(outcome(name))
        results.append(json.loads((place["tmp"] / file).read_text()))
    for key in RECALLS:
        assert results[0][key] == pytest.approx(results[1][key], abs=0.001), key


def test_missing_images_may_be_allowed(outcome: Outcome) -> None:
    assert "11 images, 22 captions" in succeeded(outcome("evaluate --allow-missing"))


def test_compare_writes_both_results_and_their_difference(place: dict[str, Path], outcome: Outcome) -> None:
    assert "mean recall of the second minus the first: +0.00 points" in succeeded(outcome("compare"))
    rows = [line.split() for line in outcome("compare").stdout.splitlines() if "/tiny fp32 " in line]
    assert [name for name, *_ in rows] == [str(place["bundle"]), str(place["tmp"] / "changed/tiny")]
    result = json.loads((place["tmp"] / "c.json").read_text())
    assert result["mean_recall_difference"] == 0
    for recalls in result["models"].values():
        assert RECALLS | {"mean_recall", "protocol"} <= set(recalls)


def test_training_without_captions_says_so(outcome: Outcome) -> None:
    done = outcome("train without captions")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(r"^error: .* has no captions to train on", done.stderr.splitlines()[-1])


def test_info_describes_a_bundle_and_its_runtime(place: dict[str, Path], outcome: Outcome) -> None:
    facts = json.loads(succeeded(outcome("info bundle --json")))
    assert facts["dimension"] == 32 and facts["precisions"] == ["fp32", "fp16", "int8"]
    assert len(facts["fingerprint"]) == 64 and facts["running"].startswith("running on")
    shown = succeeded(outcome("info bundle"))
    assert facts["fingerprint"] in shown and facts["running"] in shown
    of_index = json.loads(succeeded(outcome("info index --json")))
    assert (of_index["pictures"], of_index["skipped"]) == (12, 0)
    assert of_index["fingerprint"] == facts["fingerprint"]
