"""Coverage-guided fuzzing of all code that reads files made by others, with one process per target.

    python -m tests.hostile.fuzz --minutes 30 [--only images captions] [--corpus FOLDER]

If an input makes the library raise anything but `MiniClipError`, the input is stored and reported once, and fuzzing
continues. An input that ends the process (a fault in native code, 1 GB or 10 seconds for a small file) ends its target.
Exit status 1 if there is such an input. `--corpus` stores the found inputs for the next run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

# MiniCLIP and Pillow are imported later, because only imports inside the fuzzer are instrumented
REPOSITORY = Path(__file__).resolve().parents[2]
TARGETS = ("pictures", "captions", "bundle", "index", "config", "run")
INSTRUMENTED = {
    "pictures": ["miniclip.data.images", "miniclip.data.metadata", "PIL"],
    "captions": ["miniclip.data", "csv"],
    "bundle": ["miniclip.inference", "miniclip.data.transform"],
    "index": ["miniclip.index"],
    "config": ["miniclip.models.config", "tomllib"],
    "run": ["miniclip.models"],
}
MAX_BYTES, MAX_SECONDS, MAX_MB = 20_000, 10, 2_000


class Result(NamedTuple):
    """The result of fuzzing one target."""

    target: str
    cases: int
    refused: int
    seconds: float
    findings: list[str]  # tracebacks, one for each line of code


def fuzz(target: str, seconds: float, corpus: Path) -> Result:
    """Fuzz one target in a separate process, which reads `corpus` and adds to it."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        started = time.monotonic()
        command = [sys.executable, "-m", "tests.hostile.fuzz", "--inside", target, "--corpus", str(corpus)]
        done = subprocess.run(
            [*command, "--minutes", str(seconds / 60), "--notes", tmp],
            cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        findings = [path.read_text() for path in sorted(Path(tmp).glob("*.traceback"))]
        counts = Path(tmp, "counts")
        cases, refused = json.loads(counts.read_text()) if counts.exists() else (0, 0)
        if not re.search(r"^Done \d+ runs in", done.stdout, re.MULTILINE):
            findings.append(f"the process ended with status {done.returncode}:\n{done.stdout[-3000:]}")
    return Result(target, cases, refused, time.monotonic() - started, findings)


def fuzz_here(target_name: str, seconds: float, corpus: Path, notes: Path) -> None:
    """The code of that process; it never returns."""
    import atheris

    with contextlib.redirect_stdout(sys.stderr), atheris.instrument_imports(include=INSTRUMENTED[target_name]):
        from tests.hostile.targets import open_target

        target = open_target(target_name, notes / "target")
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    words = {word for seed in target.seeds for word in re.findall(rb"[A-Za-z_]{3,24}", seed)}
    (notes / "words").write_text("".join(f'"{word.decode()}"\n' for word in sorted(words)[:500]))
    cases = refused = 0
    seen: set[str] = set()

    def one(data: bytes) -> None:
        nonlocal cases, refused
        cases += 1
        try:
            refused += target(data)
        except BaseException as error:  # panics of PyO3 are not an Exception
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
            if place not in seen:
                seen.add(place)
                kept = corpus.parent / f"found-{target_name}-{hashlib.sha256(data).hexdigest()[:12]}"
                kept.write_bytes(data)
                text = f"{target_name}: {kept}\n{''.join(traceback.format_exception(error)[-6:])}"
                (notes / f"{len(seen):03}.traceback").write_text(text[:5000])
        if cases % 100 == 0 or cases < 100:
            (notes / "counts").write_text(json.dumps([cases, refused]))

    flags = [f"-max_total_time={int(seconds)}", f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MB}", "-verbosity=1"]
    flags += [
        f"-max_len={MAX_BYTES}",
        f"-dict={notes / 'words'}",
        f"-artifact_prefix={corpus.parent}/found-{target_name}-",
    ]
    atheris.Setup([target_name, *flags, "-print_final_stats=0", str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of fuzzing, shared among the targets")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--corpus", type=Path, help="folder that keeps inputs for the next time")
    parser.add_argument("--inside", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--notes", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        fuzz_here(arguments.inside, arguments.minutes * 60, arguments.corpus, arguments.notes)
    with tempfile.TemporaryDirectory() as tmp:
        corpus = arguments.corpus or Path(tmp)
        results = []
        for name in arguments.only:
            results.append(fuzz(name, arguments.minutes * 60 / len(arguments.only), corpus / name))
            print(f"{name:10} {results[-1].cases:>9,} cases {results[-1].refused:>9,} refused "
                  f"{results[-1].seconds:6.0f} s  {len(results[-1].findings)} findings", flush=True)  # fmt: skip
            for finding in results[-1].findings:
                print(finding, flush=True)
    total = sum(result.cases for result in results)
    print(f"{total:,} cases in {sum(result.seconds for result in results) / 60:.1f} minutes")
    return any(result.findings for result in results)


if __name__ == "__main__":
    sys.exit(main())
