"""Commands for tests, by name: good ones, mistakes, and --help. Each runs once, in this process, on demand."""

import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.cli import Done, run_cli

EVALUATE = "miniclip.cli evaluate --bundle {bundle} --data {data} --split all"
TRAIN = "train --data {data} --out {tmp}/new_run"


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
        "notes exists and is not an index; choose another --out",
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
        "no image of the index is below .*/nowhere; the first is in .*/shapes",
    ),
    "no day": ("miniclip.cli search red --index {index} --after yesterday", "--after: must be a day such as"),
    "one label": ("miniclip.cli classify {data} --labels cat --bundle {bundle}", "needs two or more different labels"),
    "threshold 2": ("miniclip.cli duplicates --index {index} --threshold 2", "--threshold must be above 0"),
    "no words and no image": ("miniclip.cli search --index {index}", "give words, .* or --image"),
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
        "blue-circle-0.png already exists; choose another --sheet",
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
    "miniclip.cli search": "WORDS --image --like --minus --folder --after --distinct --index --top-k --json --null",
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


def succeeded(done: Done) -> str:
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout
