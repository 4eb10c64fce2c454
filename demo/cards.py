"""Results as HTML, from the templates in templates/.

Jinja escapes every value: names and captions may hold HTML. Templates take the page's words from `t` (i18n.py).
"""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from miniclip.data.moments import moment

from .gallery_search import Card, ResultPage
from .i18n import decimal, fill, text_of

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(name: str, **values: Any) -> str:
    """Fill templates/NAME.html."""
    return _templates.get_template(f"{name}.html").render(**values)


def render_text(template: str, **values: Any) -> str:
    """Fill a template that is not a file of templates/."""
    return _templates.from_string(template).render(**values)


def results(page: ResultPage) -> str:
    return render("results", page=page, downloads=downloads(page))


def percent(share: float) -> str:
    """A probability as text. It is never 0 % or 100 %, because nothing is certain."""
    if share < 0.01:
        return "< 1 %"
    return "> 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def bars(pairs: Sequence[tuple[str, float]], as_percent: bool = False) -> str:
    """Texts with bars; a value of 1 fills the bar."""
    return render("bars", pairs=pairs, as_percent=as_percent)


def downloads(page: ResultPage) -> dict[str, str]:
    """The results as files, by kind. They are `data:` addresses, so a download needs no other search."""
    rows = [_row(rank, card) for rank, card in enumerate(page.cards, 1)]
    as_json = json.dumps({"query": page.heading, "results": rows}, ensure_ascii=False, indent=1)
    stream = io.StringIO()
    table = csv.writer(stream)
    table.writerow(["rank", "picture", "score", "probability", "captions"])
    for row in rows:
        image, captions = (_without_formula(cell) for cell in (row["picture"], " | ".join(row["captions"])))
        table.writerow([row["rank"], image, row["score"], row["probability"], captions])
    return {
        "JSON": _data_address("application/json", as_json),
        "CSV": _data_address("text/csv", stream.getvalue()),
    }


def _row(rank: int, card: Card) -> dict[str, Any]:
    return {
        "rank": rank,
        "picture": card.name if card.second is None else moment(card.name, card.second),
        "score": round(card.score, 4),
        "probability": None if card.probability is None else round(card.probability, 4),
        "captions": card.captions,
    }


def _without_formula(cell: str) -> str:
    """The cell, quoted if it begins like a formula, which a spreadsheet would run."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell


def _data_address(mime: str, text: str) -> str:
    return f"data:{mime};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _escaped(key: str, **values: Any) -> str:
    """`t` for templates. It escapes values, unless they are HTML already, such as the result of a macro."""
    return fill(escape(text_of(key, values.get("count"))), values)


_templates.filters |= {"percent": percent, "decimal": decimal}
_templates.globals["t"] = _escaped
