"""The compose file and the nginx block of docs/sharing.md agree with the page."""

import re
import shlex
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.__main__ import parser
from tests.support.cli import REPOSITORY

DOCUMENT = (REPOSITORY / "docs/sharing.md").read_text(encoding="utf-8")
LOCATION = DOCUMENT.split("```nginx\n")[1].split("```")[0]
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load(DOCUMENT.split("```yaml\n")[1].split("```")[0])


def test_the_page_accepts_the_command_of_the_container(compose: dict[str, Any]) -> None:
    python, dash_m, module, *flags = shlex.split(compose["services"]["clip"]["command"])
    assert (python, dash_m, module) == ("python", "-m", "demo")
    arguments = parser().parse_args(flags)
    assert arguments.host == "0.0.0.0" and arguments.auth == ("user", "password")
    assert f"location {arguments.root_path}/ {{" in LOCATION and f"127.0.0.1:{arguments.port}/;" in LOCATION
    assert (REPOSITORY / arguments.bundle / "manifest.json").exists()
    assert [volume for volume in compose["services"]["clip"]["volumes"] if f":{arguments.images}" in volume]


def test_data_of_the_container_is_in_a_volume(compose: dict[str, Any]) -> None:
    clip, nginx = compose["services"]["clip"], compose["services"]["nginx"]
    (volume,) = compose["volumes"]
    assert f"{volume}:{clip['environment']['MINICLIP_CACHE']}" in clip["volumes"]
    assert "ports" not in clip, "only nginx can connect, as FORWARDED_ALLOW_IPS says"
    assert nginx["depends_on"] == ["clip"] and nginx["ports"] == ["8080:80"]


def test_the_image_is_built_from_extras_that_exist(compose: dict[str, Any]) -> None:
    lines = compose["services"]["clip"]["build"]["dockerfile_inline"].splitlines()
    assert [line.split()[0] for line in lines] == ["FROM", "WORKDIR", "COPY", "RUN"]
    extras = re.search(r'-e "\.\[([\w,]+)\]"', lines[-1])
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras is not None and set(extras[1].split(",")) <= set(known)


@pytest.mark.skipif(not Path(NGINX).exists(), reason="Debian's nginx is not installed")
def test_nginx_accepts_the_block_of_the_compose_file(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = LOCATION.replace("127.0.0.1:7860", "localhost:7860")  # a name that resolves here, like `clip` there
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ access_log off;\nserver {{ listen 127.0.0.1:{port}; {own} }} }}"
    )
    command = [NGINX, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and "test is successful" in done.stderr, done.stderr
