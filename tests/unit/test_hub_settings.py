"""A published `config.json` names no folder of the machine that its run was trained on."""

import json
import shutil
from pathlib import Path

from miniclip.models.checkpoint import load_run


def test_a_published_run_names_its_start_without_a_folder(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    settings = json.loads((run / "config.json").read_text())
    settings["config"]["train"]["start_from"] = "/home/jane/secret/setup2"
    (run / "config.json").write_text(json.dumps(settings))
    load_run(run).save_pretrained(tmp_path / "copy")
    assert "secret" not in (tmp_path / "copy/config.json").read_text()
    assert load_run(tmp_path / "copy").config.train.start_from == "setup2"
