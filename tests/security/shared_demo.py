"""A shared page without a tunnel to the outside."""

import subprocess
import sys

from tests.e2e.conftest import REPOSITORY, DemoProcess, image_index  # noqa: F401

# only the tunnel is replaced, because it would need a server elsewhere
WITHOUT_TUNNEL = """
import runpy, sys
from gradio import networking
def setup_tunnel(*arguments):
    raise RuntimeError("Could not get share link from Gradio API Server.")
networking.setup_tunnel = setup_tunnel
sys.argv[0] = "demo"
runpy.run_module("demo", run_name="__main__")
"""


class SharedDemo(DemoProcess):
    """`python -m demo --share` without a tunnel."""

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        return super().start([sys.executable, "-c", WITHOUT_TUNNEL, *command[3:], "--share"], environment)
