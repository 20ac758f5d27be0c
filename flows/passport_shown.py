"""The passport in the terminal: compact tables, one line of verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.forecast import in_bytes
from flows.kept_passports import Passport

MOST_GROUPS = 40


def show(told: Passport, out: Console) -> None:
    """Print the tables and the verdict."""
    if told["groups"]["lines"]:
        out.print(groups(told), markup=False)
    if told["sample"]:
        out.print(stages(told), markup=False)
    for line in [*told["notes"], *told["mix"]["notes"]]:
        out.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    for line in verdict(told):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def groups(told: Passport) -> Table:
    """Groups with sizes, and what the mix makes of them."""
    of, mixture = told["groups"], told["mix"]
    words = "words" if told["tokens"] == "words" else "tokens"
    table = Table(title=f"groups by {of['by'] or 'nothing: there is one'}", title_justify="left")
    for name in ("group", "rows", "bytes", words, "kept", "proportion", "draws", "epochs"):
        table.add_column(name, justify="left" if name == "group" else "right")
    about = "" if of["whole"] else "~"
    lines = sorted(of["lines"], key=lambda line: (-(line["rows"] or 0), line["group"]))
    for line in lines[:MOST_GROUPS]:
        learned = "learned" if mixture.get("learned") else "-"
        table.add_row(
            line["group"],
            "-" if line["rows"] is None else f"{'' if of['counted'] else '~'}{line['rows']:,}",
            "-" if line["bytes"] is None else about + in_bytes(line["bytes"]),
            "-" if line["tokens"] is None else f"{about}{line['tokens']:,}",
            "-" if line["kept"] is None else f"{about}{100 * line['kept']:.0f} %",
            learned if line.get("proportion") is None else f"{100 * line['proportion']:.1f} %",
            learned if line.get("draws") is None else f"{line['draws']:,}",
            learned if line.get("epochs") is None else f"{line['epochs']:.2f}",
        )
    if len(lines) > MOST_GROUPS:
        table.add_row(f"and {len(lines) - MOST_GROUPS:,} smaller ones", *[""] * 7)
    return table


def stages(told: Passport) -> Table:
    """Time and storage of every stage, and the total."""
    table = Table(title=f"estimate, {told['workers']} workers", title_justify="left")
    for name in ("stage", "kind", "rows to do", "kept", "time", "of it loading", "task runs", "stored"):
        table.add_column(name, justify="left" if name in ("stage", "kind") else "right")
    for one in told["stages"]:
        kept = told["kept"].get(one["stage"]) if one["stage"].startswith("select/") else None
        share = "-" if kept is None else f"~{100 * kept:.1f} %"
        cells = ("done before", "", "", "") if one["done"] else tuple(_cells(one))
        rows = "-" if one["done"] else f"{one['rows']:,}"
        table.add_row(one["stage"], ", ".join(dict.fromkeys(one["kinds"])), rows, share, *cells)
    table.add_section()
    table.add_row("total", "", "", "", duration(told["total"]["seconds"]), "", "", in_bytes(told["total"]["bytes"]))
    return table


def _cells(one: dict[str, Any]) -> Iterator[str]:
    if one["seconds"] is None:
        yield from ("not known", "", "", "not known")
        return
    yield duration(one["seconds"])
    yield duration(one["loading"]) if one["loading"] >= 0.5 else ""
    yield str(one["tasks"])
    yield in_bytes(one["bytes"])


def verdict(told: Passport) -> Iterator[str]:
    """What a user wants to know first, in a line or two."""
    mixture, total = told["mix"], told["total"]
    if mixture.get("learned"):
        yield f"proportions: {mixture['learned']}"
    elif mixture["rho"] is not None and len(told["groups"]["lines"]) > 1:
        most = max((line.get("epochs") or 0.0 for line in told["groups"]["lines"]), default=0.0)
        yield (
            f"effective sample size {mixture['ess']:,.0f} rows, rho {mixture['rho']:.3f}; the most repeated group is "
            f"seen {most:.2f} times"
        )
    if mixture["short"]:
        yield f"the budget cannot be met: `max_epochs` leaves it {mixture['short']:,} draws short"
    parts = []
    if total:
        parts.append(f"about {duration(total['seconds'])} and {in_bytes(total['bytes'])}")
    if mixture["emitted"] is not None:
        at_most = "" if told["sample"] else "at most "
        parts.append(
            f"{at_most}{mixture['emitted']:,} rows in {mixture['batches']:,} batches of {mixture['batch_size']:,}"
        )
    if parts:
        yield f"verdict: {', for '.join(parts)}" + ("" if total else "; times were not measured")


def duration(seconds: float) -> str:
    """A time in a unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
