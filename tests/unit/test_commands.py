"""The commands as a user runs them: their output, their files, and one line for every mistake.

Each command runs once, in this process, when the first test needs its outcome.
"""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.cli import Done, run_cli

EVALUATE = "miniclip.cli evaluate --bundle {bundle} --data {data} --split all"
TRAIN = "train --data {data} --out {tmp}/new_run"
RECALLS = {f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
Outcome = Callable[[str], Done]


@pytest.fixture(scope="module")
def place(
    tiny_run: Path,
    tiny_bundle: Path,
    tiny_index: Path,
    image_folder: Path,
    tiny_config: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Inputs of the commands by name: good ones, and in `tmp` every kind of broken one."""
    tmp = tmp_path_factory.mktemp("commands")
    (tmp / "empty").mkdir()
    (tmp / "only_text").mkdir()
    (tmp / "only_text/holiday.jpg").write_text("I am no image")
    (tmp / "file").write_text("a file")
    (tmp / "notes").mkdir()
    (tmp / "notes/diary.txt").write_text("dear diary")
    jpeg = next(image_folder.glob("*.jpg")).read_bytes()
    (tmp / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp / "unknown_key.toml").write_text("[train]\nlearning_rat = 1e-3\n")
    shutil.copytree(tiny_bundle, tmp / "changed/tiny")
    content = bytearray((tmp / "changed/tiny/onnx/text_model_quantized.onnx").read_bytes())
    content[-20] ^= 1
    (tmp / "changed/tiny/onnx/text_model_quantized.onnx").write_bytes(content)
    shutil.copytree(image_folder, tmp / "uncaptioned", ignore=shutil.ignore_patterns("*.csv"))
    shutil.copytree(image_folder, tmp / "one_missing")
    sorted((tmp / "one_missing").glob("*-*"))[0].unlink()
    made = {"run": tiny_run, "bundle": tiny_bundle, "index": tiny_index, "config": tiny_config}
    return {**made, "data": image_folder, "tmp": tmp}


# name -> the command, and a pattern for its error line
MISTAKES = {
    "wrong path": ("miniclip.cli index {tmp}/nowhere --bundle {bundle} --out {tmp}/i1", "nowhere does not exist; give"),
    "empty folder": (
        "miniclip.cli index {tmp}/empty --bundle {bundle} --out {tmp}/i2",
        "no caption file and no images",
    ),
    "text file named .jpg": (
        "miniclip.cli index {tmp}/only_text --bundle {bundle} --out {tmp}/i3",
        r"no image in .* could be read; the first: .*holiday\.jpg: not an image",
    ),
    "index into a folder of other things": (
        "miniclip.cli index {data} --bundle {bundle} --out {tmp}/notes",
        "notes exists and is no index; choose another --out",
    ),
    "no bundle": ("miniclip.cli index {data} --bundle {tmp}/empty --out {tmp}/i4", r"is it a bundle\?"),
    "bundle with one byte changed": (
        "miniclip.cli index {data} --bundle {tmp}/changed/tiny --out {tmp}/i5",
        r"text_model_quantized\.onnx does not match its SHA-256",
    ),
    "truncated JPEG": ("miniclip.cli search --image {tmp}/cut.jpg --index {index}", r"cut\.jpg: damaged .*truncated"),
    "words and a truncated image": (
        "miniclip.cli search red --image {tmp}/cut.jpg --index {index}",
        r"cut\.jpg: damaged .*truncated",
    ),
    "image that is not indexed": (
        "miniclip.cli search --like {tmp}/cut.jpg --index {index}",
        r"cut\.jpg is not in the index; search by any image with --image",
    ),
    "folder without an image": (
        "miniclip.cli search red --folder {data}/nowhere --index {index}",
        "no image of the index lies below .*/nowhere; the first lies in .*/shapes",
    ),
    "no day": ("miniclip.cli search red --index {index} --after yesterday", "--after: must be a day such as"),
    "one label": ("miniclip.cli classify {data} --labels cat --bundle {bundle}", "needs two or more different labels"),
    "threshold 2": ("miniclip.cli duplicates --index {index} --threshold 2", "--threshold must be above 0"),
    "no words and no image": ("miniclip.cli search --index {index}", "give either words, .* or --image"),
    "empty words": ("miniclip.cli search ' ' --index {index}", "the query is empty"),
    "no index": ("miniclip.cli search red --index {tmp}/empty", "no index at .*; make one with: miniclip index"),
    "top-k 0": ("miniclip.cli search red --index {index} --top-k 0", "--top-k: must be a whole number above 0, got 0"),
    "top-k that is no digit": ("miniclip.cli search red --index {index} --top-k ²", "--top-k: must be a whole number"),
    "unknown provider": ("miniclip.cli info {bundle} --provider gpu", "--provider must be one of auto, cuda, .*cpu"),
    "unknown precision": ("miniclip.cli info {bundle} --precision int4", "int4: the bundle has fp32, fp16, int8"),
    "unknown split": (f"{EVALUATE} --split holdout", "unknown split 'holdout'"),
    "unknown protocol": (f"{EVALUATE} --protocol clip", "--protocol must be one of karpathy, paired"),
    "unwritable --json": (
        f"{EVALUATE} --json {{tmp}}/file/x.json",
        r"cannot write .*x\.json: .*; choose another --json",
    ),
    "unwritable --clip-benchmark": (
        f"{EVALUATE} --clip-benchmark {{tmp}}/file/x.json",
        r"cannot write .*x\.json: .*; choose another --clip-benchmark",
    ),
    "data without captions": (f"{EVALUATE} --data {{tmp}}/uncaptioned", "has no captions"),
    "missing images": (
        f"{EVALUATE} --data {{tmp}}/one_missing",
        "2 of 24 rows were skipped, more than 5%: .*--allow-missing",
    ),
    "run that is none": ("miniclip.cli evaluate --run {tmp}/empty --data {data}", "no run at .*: python -m train"),
    "one model compared with itself": ("miniclip.cli compare {bundle} {bundle} --data {data}", "two different models"),
    "batch size 1": (f"{TRAIN} --train.batch_size 1", "must be at least 2 for a contrastive loss, got 1"),
    "unknown key in TOML": (
        f"{TRAIN} --config {{tmp}}/unknown_key.toml",
        r"train\.learning_rat; did you mean learning_rate",
    ),
    "unknown flag": (f"{TRAIN} --train.nope 3", r"--train\.nope"),
    "missing config": (f"{TRAIN} --config {{tmp}}/none.toml", r"cannot read the config .*none\.toml"),
    "existing run": ("train --data {data} --out {run}", "holds a run already; add --resume"),
    "search --sheet over a file": (
        "miniclip.cli search red --index {index} --sheet {data}/blue-circle-0.png",
        "blue-circle-0.png is there already; choose another --sheet",
    ),
    "export into a folder of other things": (
        "export --run {run} --out {tmp}/notes",
        "notes exists and is not a bundle",
    ),
}

COMMANDS = {
    "search": "miniclip.cli search 'a red circle' --index {index} --top-k 5",
    "search no name": "miniclip.cli search 'two dogs' --index {index} --top-k 5",
    "search --json": "miniclip.cli search 'a red circle' --index {index} --top-k 5 --json",
    "search --image": "miniclip.cli search --image {data}/blue-circle-0.png --index {index} --json",
    "search --image few": "miniclip.cli search --image {data}/blue-circle-0.png --index {index} --top-k 3 --json",
    "search --sheet": "miniclip.cli search 'a red circle' --index {index} --top-k 7 --sheet {tmp}/sheet.png",
    "search -0": "miniclip.cli search 'a red circle' --index {index} --top-k 5 -0",
    "search composed": "miniclip.cli search 'red circle' 'a big red circle' --minus square --folder {data} --distinct "
    "--image {data}/blue-circle-0.png --text-weight 0.7 --index {index} --json",
    "search --like": "miniclip.cli search --like {data}/blue-circle-0.png --index {index} --top-k 3 --json",
    "search --matches": "miniclip.cli search 'a red circle' --index {index} --matches --top-k 12 --json",
    "duplicates": "miniclip.cli duplicates --index {index} --threshold 0.5",
    "duplicates --json": "miniclip.cli duplicates --index {index} --threshold 0.5 --json",
    "classify": "miniclip.cli classify {data} --labels circle square 'red car' --bundle {bundle}",
    "classify --json": "miniclip.cli classify {data}/blue-circle-0.png --labels circle square --bundle {bundle} --json",
    "classify file://": "miniclip.cli classify file://{data} --labels circle square 'red car' --bundle {bundle}",
    "classify one file://": (
        "miniclip.cli classify file://{data}/blue-circle-0.png --labels circle square --bundle {bundle} --json"
    ),
    "search not UTF-8": "miniclip.cli search 'caf\udce9' --index {index} --json",
    "evaluate": f"{EVALUATE} --precision fp32 --json {{tmp}}/made/bundle.json",
    "evaluate paired": f"{EVALUATE} --protocol paired --json {{tmp}}/paired.json",
    "evaluate --run": "miniclip.cli evaluate --run {run} --data {data} --split all --json {tmp}/run.json",
    "evaluate --clip-benchmark": (
        f"{EVALUATE} --precision fp32 --json {{tmp}}/plain.json --clip-benchmark {{tmp}}/made/clip_benchmark.json"
    ),
    "evaluate --allow-missing": f"{EVALUATE} --data {{tmp}}/one_missing --allow-missing",
    "compare": (
        "miniclip.cli compare {bundle} {tmp}/changed/tiny --precision fp32 --data {data} --split all "
        "--json {tmp}/c.json"
    ),
    "info bundle": "miniclip.cli info {bundle}",
    "info bundle --json": "miniclip.cli info {bundle} --json",
    "info index --json": "miniclip.cli info {index} --json",
    "train without captions": "train --config {config} --data {tmp}/uncaptioned --out {tmp}/uncaptioned_run",
}

HELP = {
    "train": "--config --data --out --resume --tracker --train.epochs --train.batch_size --model.vision",
    "train.interpolate": "--before --after --data --out --steps",
    "export": "--run --out --precision fp32 fp16 int8",
    "export.benchmark": "--run --bundle --data --split --json",
    "demo": "--bundle --images --index --share --auth --port 7860",
    "miniclip.cli": "index search duplicates classify evaluate compare info",
    "miniclip.cli index": "images --bundle --out --watch --ray",
    "miniclip.cli search": "words --image --like --minus --folder --after --distinct --index --top-k --json --null",
    "miniclip.cli duplicates": "--index --threshold --json",
    "miniclip.cli classify": "--labels --bundle --json",
    "miniclip.cli evaluate": "--bundle --run --data --split --protocol karpathy paired --json",
    "miniclip.cli compare": "--data --split --json",
}


@pytest.fixture(scope="module")
def outcome(place: dict[str, Path]) -> Outcome:
    """The outcome of the command with this name."""
    templates = {name: template for name, (template, _) in MISTAKES.items()} | COMMANDS
    templates |= {f"{name} --help": f"{name} --help" for name in HELP}

    @cache
    def run(name: str) -> Done:
        return run_cli(*(word.format(**place) for word in shlex.split(templates[name])))

    return run


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


def succeeded(done: Done) -> str:
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


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
