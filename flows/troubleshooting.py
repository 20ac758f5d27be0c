"""docs/troubleshooting.md, made from the catalogue of errors and from the reasons that methods declare."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from configs.catalogue import all_reasons
from configs.errors import catalogue

BEGIN, END = "<!-- made by `python -m flows.troubleshooting docs/troubleshooting.md` -->", "<!-- end -->"


def markdown() -> str:
    """Two tables: errors by their class, reasons by their word."""
    coded = [(f"`{name}`", *rest) for name, *rest in reasons()]
    return (
        "A message says what is wrong, where, and the value seen. What it is called, and the way out:\n\n"
        + _table(("error", "raised when", "what to do"), errors())
        + "\n\nA row that is not in the mix has a reason in `ledger/`, one that could not be used also a line in "
        "`quarantine/` with the details:\n\n" + _table(("reason", "meaning", "what to do"), coded) + "\n"
    )


def errors() -> list[tuple[str, str, str]]:
    """Name, what it is raised for, and what to do, of every error that a user may meet."""
    return [(member.__name__, _raised_when(member), member.remedy) for member in catalogue()]


def reasons() -> list[tuple[str, str, str]]:
    """Word, meaning and what to do, of every reason."""
    return [(word, reason.meaning, reason.remedy) for word, reason in sorted(all_reasons().items())]


def _raised_when(member: type) -> str:
    text = " ".join((member.__doc__ or "").split()).removeprefix("Raised when ")
    return text[0].upper() + text[1:]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def renew(path: Path) -> None:
    """Put the tables into a Markdown file, between the marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, behind = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{markdown()}{END}{behind}", encoding="utf-8")


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
