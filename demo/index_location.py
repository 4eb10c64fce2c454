"""The index of a folder that the page was pointed at, made or updated before the page opens.

In: the argument of `--images`, and encoders. Out: an index folder in the cache (`miniclip.index.location`).
"""

from pathlib import Path

from miniclip.index.location import bring_up_to_date, index_folder
from miniclip.inference.onnx_encoders import OnnxEncoders

__all__ = ["index_folder", "index_images"]


def index_images(images: str, encoders: OnnxEncoders) -> Path:
    """Make or update the index and print what happens; unchanged images keep their embedding."""
    print(encoders.running_on)
    return bring_up_to_date(images, encoders, lambda line: print(line, flush=True))
