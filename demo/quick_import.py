"""Importing Gradio without what only slows it down.

Whenever it is imported, Gradio renders a stub file for editors beside each of its components; nobody who looks at the
page reads them. And importing makes objects that stay, through which the garbage collector would look again and again.
"""

import gc
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STUB_WRITER = "create_or_modify_pyi"  # in gradio.component_meta; a class without a file gets no stub


@contextmanager
def quick_import() -> Iterator[None]:
    """Inside, no stub is written and nothing is collected; were Gradio changed, it would only be slower."""
    find_file = inspect.getfile

    def no_file_for_stubs(thing: Any) -> str:
        if sys._getframe(1).f_code.co_name == STUB_WRITER:
            raise OSError("no stub")
        return find_file(thing)

    inspect.getfile = no_file_for_stubs  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        inspect.getfile = find_file
        gc.enable()
        gc.freeze()  # what is there now stays for as long as the page runs
