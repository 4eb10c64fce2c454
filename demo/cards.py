"""Answers to HTML. Everything from files or users passes `escape`; the pieces are styled by static/style.css."""

import base64
import csv
import io
import json
from html import escape

from miniclip.search.searcher import CaptionHit

from .compare import ModelColumn
from .gallery_search import Card, Detail, ResultPage

NOTHING_MATCHES = "Nothing here matches well. The nearest images are:"


def answer(found: ResultPage) -> str:
    """The gallery below its heading and its downloads, or the message in its place."""
    if found.message:
        return message(found.message)
    note = f'<p class="note" role="status">{NOTHING_MATCHES}</p>' if found.nothing_matches else ""
    return (
        f'<div class="heading"><h2>{escape(found.heading)}</h2>{_downloads(found)}</div>{note}'
        f'<ul class="cards">{"".join(card(one, rank) for rank, one in enumerate(found.cards))}</ul>'
    )


def message(text: str) -> str:
    return f'<p class="message" role="status">{escape(text)}</p>'


def card(shown: Card, rank: int = 0) -> str:
    """An image to click on: everywhere on the page it opens the large view."""
    loading = "eager" if rank < 8 else "lazy"
    title = escape(shown.title, quote=True)
    likely, data = "", ""
    if shown.probability is not None:
        likely = f'<b class="probability" title="how likely it matches the words">{percent(shown.probability)}</b>'
        data = f' data-probability="{shown.probability:.4f}"'
    score = f'<span class="score" title="cosine similarity">{shown.score:.2f}</span>' if shown.score else ""
    return (
        f'<li><button type="button" class="card" data-row="{shown.row}" data-score="{shown.score:.4f}"{data}'
        f' title="{title}"><img src="{shown.preview}" alt="" loading="{loading}" decoding="async">'
        f'<span class="title">{title}</span><span class="numbers">{likely}{score}</span></button></li>'
    )


def percent(share: float) -> str:
    """A share as people read it: never 0 % or 100 % of what is not certain."""
    if share < 0.01:
        return "&lt; 1 %"
    return "&gt; 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _downloads(found: ResultPage) -> str:
    """Links that hold the files themselves: what is on the page is what is saved, and nothing is asked again."""
    rows = [
        {
            "rank": rank,
            "picture": one.name,
            "score": round(one.score, 4),
            "probability": None if one.probability is None else round(one.probability, 4),
            "captions": one.captions,
        }
        for rank, one in enumerate(found.cards, 1)
    ]
    as_json = json.dumps({"query": found.heading, "results": rows}, ensure_ascii=False, indent=1)
    stream = io.StringIO()
    table = csv.writer(stream)
    table.writerow(["rank", "picture", "score", "probability", "captions"])
    for row in rows:
        cells = [str(row["picture"]), " | ".join(row["captions"])]  # type: ignore[arg-type]
        image, captions = (f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell for cell in cells)
        table.writerow([row["rank"], image, row["score"], row["probability"], captions])
    files = (("JSON", "application/json", as_json), ("CSV", "text/csv", stream.getvalue()))
    links = "".join(
        f'<a download="results.{kind.lower()}" aria-label="Download the results as {kind}"'
        f' href="data:{mime};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}">{kind}</a>'
        for kind, mime, text in files
    )
    return f'<span class="downloads"><span aria-hidden="true">Download</span>{links}</span>'


def bars(pairs: list[tuple[str, float]], full: float, is_share: bool = False) -> str:
    """Texts with bars of their values; `full` is the value that fills a bar."""
    items = "".join(
        f'<li><span class="caption">{escape(text)}</span>'
        f'<span class="score">{percent(value) if is_share else f"{value:.2f}"}</span>'
        f'<span class="bar" style="--share: {100 * max(value, 0.0) / full if full > 0 else 0:.0f}%"></span></li>'
        for text, value in pairs
    )
    return f'<ol class="bars">{items}</ol>'


def caption_bars(found: list[CaptionHit]) -> str:
    """Captions with bars of their scores; the best one's bar is full."""
    best = max((hit.score for hit in found), default=0.0)
    return bars([(hit.caption, hit.score) for hit in found], best)


def detail(shown: Detail, words: str) -> str:
    """The inside of the large view's dialog; with `words`, it can show where in the image they are found."""
    one = shown.card
    facts = []
    if one.score:
        facts.append(("Similarity", f"{one.score:.3f}"))
    if one.probability is not None:
        facts.append(("Match", percent(one.probability)))
    if shown.taken:
        facts.append(("Taken", shown.taken))
    facts.append(("File", escape(shown.path or one.name)))
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    captions = "".join(f"<li>{escape(caption)}</li>" for caption in shown.captions)
    why = (
        f'<button type="button" data-action="why" aria-pressed="false">Why “{escape(words)}”?</button>' if words else ""
    )
    return (
        f'<div class="large" data-row="{one.row}" data-like="{one.content_id}">'
        f'<div class="image"><div class="frame"><img src="{shown.large}" alt="{escape(one.title, quote=True)}"></div>'
        '<button type="button" class="turn previous" data-action="previous" aria-label="Previous image">‹</button>'
        '<button type="button" class="turn next" data-action="next" aria-label="Next image">›</button></div>'
        f'<div class="facts"><h2 id="detail-title">{escape(one.title)}</h2>'
        + (f'<h3>Its captions</h3><ul class="captions">{captions}</ul>' if len(shown.captions) > 1 else "")
        + f'<dl>{listed}</dl><p class="actions">'
        '<button type="button" class="primary" data-action="like">More like this</button>'
        '<button type="button" data-action="add" title="Search with your words and this image together">'
        "Use as query</button>"
        f'{why}<button type="button" data-action="describe">Describe it</button></p>'
        '<p class="told" role="status"></p></div>'
        '<button type="button" class="close" data-action="close" aria-label="Close">×</button></div>'
    )


def duplicates(groups: list[list[Card]], total: int) -> str:
    """Groups of images that look the same."""
    if not groups:
        return message("No image is here twice.")
    shown = "" if len(groups) == total else f" The first {len(groups)} are shown."
    found = f"{total:,} groups" if total > 1 else "One group"
    items = "".join(
        f'<li><h4>{len(cards)} alike</h4><ul class="cards small">{"".join(card(one, 99) for one in cards)}</ul></li>'
        for cards in groups
    )
    return f'<p>{found} of images that look alike.{shown}</p><ul class="groups">{items}</ul>'


def sides(both: list[ModelColumn]) -> str:
    """Two answers next to each other."""
    columns = "".join(
        f'<section aria-label="{escape(side.name, quote=True)}"><h3>{escape(side.name)} '
        f'<span class="score">{side.query_ms:.1f} ms a query</span></h3>'
        f'<ul class="cards small">{"".join(card(one, rank) for rank, one in enumerate(side.cards))}</ul>'
        f"{_absent(side)}</section>"
        for side in both
    )
    return (
        f'<p role="status">{both[0].common} of {len(both[0].cards) + both[0].absent} images are found by both.</p>'
        f'<div class="sides">{columns}</div>'
    )


def _absent(side: ModelColumn) -> str:
    if not side.absent:
        return ""
    return f'<p class="note">{side.absent} more are in its index, but not in the gallery that is open.</p>'
