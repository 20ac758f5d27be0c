"""The short card of a mix in Markdown, for the run's page in the UI. Text of strangers is shown, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.report import coverage, mixed, valued
from tasks.report.wording import by_count, clean, count, percent, times

MOST_CHANGED = 8


def card(summary: Mapping[str, Any], *, reasons: int = 6, groups: int = 20) -> str:
    """The card, with the `reasons` commonest reasons and the `groups` largest groups."""
    batches = summary["batches"]
    lines = [
        f"# {plain(summary['name'])} `{plain(summary['version'])}`",
        f"{count(summary['emitted'])} rows in {count(batches['steps'])} batches of {count(batches['batch_size'])}, "
        f"seed {summary['seed']}.",
        *(f"> {plain(note)}" for note in summary["notes"]),
        _table(
            ("Outcome", "Rows", "Share"),
            [
                (name, count(summary["outcomes"][name]), percent(summary["outcomes"][name], summary["rows_in"]))
                for name in ("kept", "dropped", "quarantined")
            ],
        ),
    ]
    lost: dict[str, int] = {}
    for row in summary["funnel"]:
        for reason, n in row["reasons"].items():
            lost[reason] = lost.get(reason, 0) + n
    if lost:
        lines.append(_table(("Reason", "Rows"), [(reason, count(n)) for reason, n in by_count(lost)[:reasons]]))
    met = [f"- {plain(one['stage'])}: {plain(one['met'])}" for one in summary.get("selects", []) if one["met"]]
    lines += ["\n".join(met)] if met else []
    if files := summary.get("files"):
        lines.append(f"{count(len(files))} files are quarantined as a whole, first {plain(files[0]['file'])}.")
    if summary["groups"]:
        largest = sorted(summary["groups"], key=lambda group: -group["achieved"])[:groups]
        shares = [(group["group"], percent(group["intended"]), percent(group["achieved"])) for group in largest]
        lines.append(_table(("Group", "Intended", "Achieved"), shares))
    if told := summary.get("mixed"):
        lines.append(plain(mixed.headline(told)))
    if concepts := summary["concepts"]:
        lines.append(
            f"{count(concepts['distinct_before'])} distinct concepts in the input, "
            f"{count(concepts['distinct_after'])} in the mix."
        )
    if changed := summary.get("changes"):
        lines += _changes(changed)
    if told := summary.get("coverage"):
        lines += coverage.headlines(told)
    if told := summary.get("utility"):
        lines.append(" ".join(valued.headlines(told)))
    return "\n\n".join(lines) + "\n"


def _changes(changed: Mapping[str, Any]) -> list[str]:
    """What is new since the mix before, in a few lines."""
    rows = changed["rows"]
    lines = [
        f"Since `{plain(changed['parent'])}` {count(rows['came'])} rows came, {count(rows['left'])} left and "
        f"{count(rows['stayed'])} stayed."
    ]
    kinds = [f"{count(one['count'])} {kind}" for kind, one in changed["files"].items() if one["count"]]
    lines += [f"Input files: {', '.join(kinds)}."] if kinds else []
    shares = [(one["group"], percent(one["before"]), percent(one["now"])) for one in changed["groups"][:MOST_CHANGED]]
    lines += [_table(("Group", "Before", "Now"), shares)] if shares else []
    for title, some in (("More of", changed["more"]), ("Less of", changed["less"])):
        named = [f"{plain(one['concept'])} ({times(one['ratio'])})" for one in some[:MOST_CHANGED]]
        lines += [f"{title}: {', '.join(named)}."] if named else []
    return lines


def funnel(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The funnel as the lines of a table in the UI."""
    return [
        {
            "stage": clean(row["stage"]),
            "rows in": row["rows_in"],
            "kept": row["kept"],
            "dropped": row["dropped"],
            "quarantined": row["quarantined"],
            "reasons": ", ".join(f"{clean(reason, 80)} {count(n)}" for reason, n in by_count(row["reasons"])),
        }
        for row in summary["funnel"]
    ]


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *(tuple(plain(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: Any) -> str:
    """Text that Markdown shows as it is: no HTML, no table cell, no emphasis, no link, one line."""
    line = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = "".join(f"\\{char}" if char in "\\`*[]|#!~$" else char for char in line)
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)  # inside a word it is no emphasis
    # Addresses become links by themselves, unless their signs are written as entities.
    return re.sub(r"www\.", "www&#46;", line.replace("://", "&#58;//").replace("@", "&#64;"), flags=re.IGNORECASE)
