"""The passport in the terminal: compact tables, one line of verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.forecast import in_bytes
from flows.kept_passports import Passport

MOST_GROUPS = 40
WIDE = 120
"""Columns of a terminal that has room for names."""
LONGEST, SHORTER = 80, 26
"""Characters of a group's name in a wide terminal and in others."""


def show(told: Passport, out: Console) -> None:
    """Print the tables and the verdict."""
    if told["groups"]["lines"]:
        out.print(groups(told, out.width), markup=False)
    if told["sample"]:
        out.print(stages(told), markup=False)
    for line in [*told["notes"], *told["mix"]["notes"]]:
        out.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    for line in told["mix"]["warnings"]:
        out.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for line in verdict(told):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def groups(told: Passport, width: int) -> Table:
    """Groups with sizes, and what the mix makes of them."""
    of, mixture = told["groups"], told["mix"]
    words = "words" if told["tokens"] == "words" else "tokens"
    table = Table(title=f"groups by {of['by'] or 'nothing: there is one'}", title_justify="left")
    table.add_column("group", overflow="fold")  # what is cut off may be all that tells two names apart
    for name in ("rows", "bytes", words, "kept", "share", "draws", "epochs"):
        table.add_column(name, justify="right", no_wrap=True)
    about = "" if of["whole"] else "~"
    lines = sorted(of["lines"], key=lambda line: (-(line["rows"] or line.get("share") or 0), line["group"]))
    for line in lines[:MOST_GROUPS]:
        learned = "learned" if mixture.get("learned") else "-"
        table.add_row(
            _name(line["group"], LONGEST if width >= WIDE else SHORTER),
            "-" if line["rows"] is None else f"{'' if of['counted'] else '~'}{line['rows']:,}",
            "-" if line["bytes"] is None else about + in_bytes(line["bytes"]),
            "-" if line["tokens"] is None else f"{about}{line['tokens']:,}",
            "-" if line["kept"] is None else f"{about}{100 * line['kept']:.0f} %",
            learned if line.get("proportion") is None else f"{100 * line['proportion']:.1f} %",
            learned if line.get("draws") is None else f"{line['draws']:,}",
            learned if line.get("epochs") is None else f"{line['epochs']:.2f}",
        )
    if rest := lines[MOST_GROUPS:]:
        rows, share, draws = (sum(line.get(key) or 0 for line in rest) for key in ("rows", "proportion", "draws"))
        mixed = [f"{100 * share:.1f} %", f"{draws:,}"] if draws else ["", ""]
        cells = [f"{rows:,}" if rows else "", "", "", "", *mixed]
        table.add_row(f"and {len(rest):,} smaller ones", *cells, "")
    return table


def _name(group: str, most: int) -> str:
    """A group's name: quoted if it is empty or would not print as it is; of a long one a little head and the tail."""
    told = group if group and group.isprintable() else repr(group)
    return told if len(told) <= most else f"{told[: most // 3]}…{told[most // 3 + 1 - most :]}"


def stages(told: Passport) -> Table:
    """Time, what of it is loading, task runs and storage of every stage that has rows to do, and the total."""
    table = Table(title=f"estimate, {told['workers']} workers", title_justify="left")
    table.add_column("stage", overflow="fold")
    table.add_column("kind", overflow="fold")
    for name in ("rows", "kept", "time", "loading", "tasks", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in told["stages"]:
        kept = told["kept"].get(one["stage"]) if one["stage"].startswith("select/") else None
        share = "-" if kept is None else f"~{100 * kept:.1f} %"
        cells = ("done before", "", "", "") if one["done"] else tuple(_cells(one))
        rows = "-" if one["done"] else f"{one['rows']:,}"
        kinds = [kind for kind in dict.fromkeys(one["kinds"]) if not one["stage"].endswith(f"/{kind}")]
        table.add_row(one["stage"], ", ".join(kinds), rows, share, *cells)
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
            f"{at_most}{mixture['emitted']:,} rows{_size(mixture)} in {mixture['batches']:,} batches of "
            f"{mixture['batch_size']:,}"
        )
    if parts:
        yield f"verdict: {', for '.join(parts)}" + ("" if total else "; times were not measured")


def _size(mixture: dict[str, Any]) -> str:
    """What the emitted rows have of what the budget counts, if that is not rows."""
    if mixture["mean"] is None:
        return ""
    size = mixture["emitted"] * mixture["mean"]
    return f", about {in_bytes(size)}," if mixture["unit"] == "bytes" else f", about {size:,.0f} {mixture['unit']},"


def duration(seconds: float) -> str:
    """A time in a unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
