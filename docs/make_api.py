"""Write docs/api.md from the docstrings of the public API: python docs/make_api.py"""

import inspect
import re
from pathlib import Path
from typing import Any

import miniclip

START = """# Python API

    pip install .     # in the checkout

Everything below is in `import miniclip`. Names that are not listed here may change in any version. Mistakes that a
user can fix raise `miniclip.MiniClipError` with one line that says what to do.

<!-- written by docs/make_api.py from the docstrings -->
"""
ORDER = ("load", "Model", "index", "open_index", "Index", "Hit", "MiniClipError")
SECTIONS = ("Args", "Returns", "Raises", "Example")


def section(name: str, text: str) -> str:
    """One section of a docstring as Markdown."""
    text = inspect.cleandoc(text)
    if name == "Example":
        code = [re.sub(r"^(>>>|\.\.\.) ?", "", line) for line in text.splitlines()]
        code.insert(1, "")  # behind the import, as the formatter wants it
        return "```python\n" + "\n".join(code) + "\n```\n"
    if name == "Returns":
        return f"Returns: {' '.join(text.split())}\n"
    entries = re.split(r"\n(?=\S)", text)
    items = (re.sub(r"^(\w+): ", r"`\1`: ", " ".join(entry.split())) for entry in entries)
    return f"{'Arguments' if name == 'Args' else 'Raises'}:\n\n" + "".join(f"- {item}\n" for item in items)


def markdown(docstring: str) -> str:
    """A docstring in Google's form as Markdown."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    texts = [parts[0].strip() + "\n"]
    texts += [section(name, body) for name, body in zip(parts[1::2], parts[2::2], strict=True)]
    return "\n".join(texts)


def signature(name: str, value: Any) -> str:
    """How it is called, without types: those are in the code, and the arguments' meanings below."""
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name != "self"
    ]
    return f"{name}{inspect.Signature(parameters)}".replace("'auto'", '"auto"')


def fields_of(kind: type) -> list[str]:
    """The public attributes of a dataclass with the string below each."""
    source = inspect.getsource(kind)
    found = re.findall(r'^    (\w+): .*\n    """(.*)"""', source, flags=re.MULTILINE)
    return [f"- `{name}`: {text}\n" for name, text in found]


def document(name: str) -> str:
    """One public name."""
    value = getattr(__import__("miniclip.search.api").search.api, name, None) or getattr(miniclip, name)
    if not inspect.isclass(value):
        return f"## `miniclip.{signature(name, value)}`\n\n{markdown(value.__doc__)}"
    texts = [f"## `miniclip.{name}`\n\n{markdown(value.__doc__ or '')}"]
    if fields := fields_of(value):
        texts.append("".join(fields))
    for member, own in vars(value).items():
        if member.startswith("_") or not (inspect.isfunction(own) or isinstance(own, property)):
            continue
        if isinstance(own, property):
            texts.append(f"### `{name}.{member}`\n\n{markdown(own.__doc__ or '')}")
        else:
            texts.append(f"### `{name}.{signature(member, own)}`\n\n{markdown(own.__doc__ or '')}")
    return "\n".join(texts)


def api_document() -> str:
    """The whole of docs/api.md."""
    return "\n".join([START, *map(document, ORDER)])


if __name__ == "__main__":
    (Path(__file__).parent / "api.md").write_text(api_document(), encoding="utf-8")
