"""The measurements in the documents. Run each with `python -m benchmarks.NAME`.

Flags for inputs have the same names as in MiniCLIP's commands: `--bundle`, `--run`, `--data`, `--index`,
`--images FOLDER`. Flags for numbers of files end in `-count`. `--seconds` is the time of one measurement. `--chart` and
`--json` name output files.
"""

import miniclip  # noqa: F401  # before onnxruntime, whose telemetry it turns off
