"""Write a Hugging Face Space: app.py, requirements.txt, README.md, the bundle, an index, and the images it shows.

    python -m demo.space --images FOLDER --bundle models/miniclip-s --out FOLDER

The Space is self-contained: it holds the images as previews of 1280 px without metadata, and no path of this machine.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from miniclip.cli.command import ArgumentParser, run_command
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.encoders import OnnxEncoders

from .index_location import index_images
from .previews import Previews

PACKAGES = ("miniclip", "demo")
SUFFIX = ".webp"
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
---

# {title}

Search {count:,} images with words. Made with MiniCLIP; the model is {bundle}.
"""
REQUIREMENTS = ("gradio", "huggingface-hub", "lancedb", "numpy", "onnx", "onnxruntime", "pillow", "pyarrow")
REQUIREMENTS += ("python-multipart", "tokenizers", "tqdm")
APP = '''"""The search page of this Space: python app.py"""

import os
from pathlib import Path

os.chdir(Path(__file__).parent)  # the index names its images relative to this folder

from demo.app import build_page, launch_options
from demo.app_state import AppState
from miniclip.search.searcher import Searcher

state = AppState(Searcher.open("index", "bundle"), is_public=True)
page = build_page(state)
page.launch(server_name=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), **launch_options(state))
'''
