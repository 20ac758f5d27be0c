"""Words for people: text of strangers made fit to be shown, numbers, and what the reasons mean."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from configs.catalogue import all_reasons

HIDDEN = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, halves of surrogate pairs, and what turns the direction of the text around it. Joiners stay:
emoji and many scripts need them."""

REASONS: Mapping[str, str] = {word: reason.meaning.replace("`", "") for word, reason in all_reasons().items()}
"""Reasons in words; of a mix made by another version there may be others, which are shown as they are."""


def clean(text: Any, most: int = 2_000) -> str:
    """One line of at most `most` characters without anything that is not seen or changes what stands beside it."""
    line = " ".join(str(text)[: 4 * most].split())
    return cut(HIDDEN.sub("\N{REPLACEMENT CHARACTER}", line), most)


def cut(line: str, most: int) -> str:
    """At most `most` characters, an ellipsis where some are missing; no mark is parted from its letter."""
    if len(line) <= most:
        return line
    end = most - 1
    while end > 1 and (unicodedata.combining(line[end]) or line[end] == "\u200d" or line[end - 1] == "\u200d"):
        end -= 1
    return line[:end].rstrip() + "…"


def count(number: float) -> str:
    """12,345."""
    return f"{number:,.0f}"


def average(number: float) -> str:
    """A mean of counts: 812, 34.5."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:,.1f}"


def percent(part: float, whole: float = 1) -> str:
    """34.8 %, and < 0.1 % for what is small but not nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return "0 %" if not share else "< 0.1 %" if share < 0.05 else f"{share:.1f} %"


def size(number: float | None) -> str:
    """Bytes, 3.1 MB for one; a dash where they are not known."""
    if number is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def times(ratio: float | None) -> str:
    """A ratio of shares: × 2.3, ÷ 4.1, or what to say where one of them is nothing."""
    if ratio is None:
        return "new"
    if ratio == 0:
        return "gone"
    sign, factor = ("×", ratio) if ratio >= 1 else ("÷", 1 / ratio)
    return f"{sign} {factor:.1f}" if factor < 100 else f"{sign} {factor:,.0f}"


def figure(value: float, digits: int = 4) -> str:
    """A score with the digits that count."""
    return f"{value:.{digits}g}"


def number(value: float) -> str:
    """A value of any size: 103,724, then four digits that count."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e8 else figure(value)


def sentence(words: str) -> str:
    """The words with a capital at their beginning."""
    return words[:1].upper() + words[1:]


def short(number: int) -> str:
    """12,345 as it is, 4,981,477,845 as 4.98 G: for charts, where there is little room."""
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= max(scale, 10**5):
            return f"{number / scale:,.2f} {unit}"
    return f"{number:,}"


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Commonest first, then by name; what has no row is left out."""
    return sorted(((name, n) for name, n in counts.items() if n), key=lambda item: (-item[1], item[0]))
