"""Answers to HTML. Everything from files or users passes `escape`; the pieces are styled by style.css.

The page's `gr.HTML` components take finished HTML as their value. Gradio's templates are not used for data: they run a
caption such as "${alert(1)}" as JavaScript.
"""

from html import escape
from itertools import count

from demo.search import Answer, Card, Detail
from miniclip.search import CaptionHit

_openings = count(1)


def cards(answer: Answer) -> str:
    """The gallery below its heading, or the message in its place."""
    if answer.message:
        return message(answer.message)
    items = "".join(_card(card, rank) for rank, card in enumerate(answer.cards))
    return f'<h2 class="heading">{escape(answer.heading)}</h2><ul class="cards">{items}</ul>'


def message(text: str) -> str:
    return f'<p class="message" role="status">{escape(text)}</p>'


def _card(card: Card, rank: int) -> str:
    loading = "eager" if rank < 8 else "lazy"
    title = escape(card.title, quote=True)
    return (
        f'<li><button type="button" class="card" data-row="{card.row}" data-score="{card.score:.4f}" title="{title}">'
        f'<img src="{card.preview}" alt="" loading="{loading}" decoding="async">'
        f'<span class="title">{title}</span><span class="score" title="cosine similarity">{card.score:.2f}</span>'
        "</button></li>"
    )


def caption_bars(found: list[CaptionHit]) -> str:
    """Captions with bars of their scores; the best one's bar is full."""
    best = max((hit.score for hit in found), default=0.0)
    rows = "".join(
        f'<li><span class="caption">{escape(hit.caption)}</span><span class="score">{hit.score:.2f}</span>'
        f'<span class="bar" style="--share: {100 * max(hit.score, 0.0) / best if best > 0 else 0:.0f}%"></span></li>'
        for hit in found
    )
    return f'<ol class="bars">{rows}</ol>'


def found_captions(found: list[CaptionHit], text: str = "") -> str:
    """The captions of an uploaded picture, or why there are none."""
    return '<h2 class="heading">Best captions</h2>' + caption_bars(found) if found else message(text)


def detail(shown: Detail) -> str:
    """The inside of the large view's dialog. Numbered, so that opening the same picture twice is a change."""
    card = shown.card
    captions = "".join(f"<li>{escape(caption)}</li>" for caption in shown.captions)
    place = f'data-row="{card.row}" data-score="{card.score:.4f}"'
    find = f'<button type="button" data-action="find_captions" {place}>Find captions</button>'
    name = "" if card.title == card.file_name else f"{escape(card.file_name)} · "
    found = ""
    if shown.found is not None:
        found = f"<h3>Captions found for it</h3>{caption_bars(shown.found)}"
    elif shown.message:
        found = message(shown.message)
    return (
        f'<div class="large" data-opening="{next(_openings)}">'
        f'<div class="picture"><img src="{shown.large}" alt="{escape(card.title, quote=True)}"></div>'
        f'<div class="facts"><h2 id="detail-title">{escape(card.title)}</h2>'
        f'<p class="file">{name}similarity {card.score:.3f}</p>'
        + (f'<h3>Its captions</h3><ul class="captions">{captions}</ul>' if captions else "")
        + f'<p class="actions"><button type="button" data-action="more_like" {place}>More like this</button>'
        + (find if shown.can_find_captions and shown.found is None else "")
        + f'</p><div class="found">{found}</div></div>'
        '<button type="button" class="close" data-action="close" aria-label="Close">×</button></div>'
    )
