"""Numbers of single concepts from a text file: thresholds, weights; and what a misspelt concept may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from configs.errors import ConfigError
from storage import files


def read_numbers(url: str, setting: str, low: float, high: float) -> dict[str, float]:
    """Concept -> number of a text file with lines of concept, tab, number; empty lines are skipped.

    Args:
        url: The file.
        setting: The setting that names it, for errors.
        low: Least number allowed.
        high: Greatest number allowed.

    Raises:
        ConfigError: There is no such file, it is not UTF-8, or a line of it is malformed, repeats a concept, or has a
            number out of bounds; says which line.
    """
    if not files.exists(url):
        raise ConfigError(f"`{setting}` is {url!r}; there is no such file")
    try:
        lines = files.read_bytes(url).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"`{setting}` is {url!r}, which is not UTF-8 text: {error}") from error
    found: dict[str, float] = {}
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{url}, line {number}"
        concept, value = _parsed(line, where)
        if not low <= value <= high:
            raise ConfigError(f"{where}: the number of {concept!r} is {value}; it must be in [{low:g}, {high:g}]")
        if concept in found:
            raise ConfigError(f"{where}: {concept!r} was in line {line_of[concept]}; keep one of them")
        found[concept], line_of[concept] = value, number
    return found


def _parsed(line: str, where: str) -> tuple[str, float]:
    fields = line.split("\t")
    concept = fields[0].strip()
    if len(fields) != 2 or not concept:
        raise ConfigError(f"{where}: {line!r} is not a concept, one tab and a number")
    try:
        return concept, float(fields[1])
    except ValueError:
        raise ConfigError(f"{where}: {fields[1].strip()!r} is no number") from None


def with_matches(concept: str, names: Sequence[str]) -> str:
    """The concept in quotes, with the names that are most like it."""
    close = get_close_matches(concept, names, n=2)
    return f"{concept!r} (did you mean {' or '.join(map(repr, close))}?)" if close else repr(concept)
