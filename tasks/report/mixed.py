"""What a report says of the mix: what each group gave and weighs, what the whole is worth, and what to do about it.

Three numbers, each a share: the efficiency, rho of the groups' shares against those among the rows there were
(`tasks.mix.ess.mix_efficiency`); rho of the rows, their effective number over their number; and what is left of that
effective number when copies count as one. The thresholds are rules of thumb.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.curate import Report
from tasks.report import rounds
from tasks.report.weighed import NAMED
from tasks.report.wording import clean, count, figure, number

RHO = (
    "rho tells what uneven weight costs: with rho 0.4 an average over the mix is as uncertain as one over 40 % as many "
    "rows that weigh the same. It says nothing of bias or quality."
)


def level(value: float, settings: Mapping[str, Any]) -> str:
    """`alarm`, `warning` or nothing, by the settings of the report; older ones have none."""
    known = Report().model_dump() | dict(settings)
    if value >= known["efficiency_warning"]:
        return ""
    return "alarm" if value < known["efficiency_alarm"] else "warning"


def warnings(mixed: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the reader of `tasks.report.weighed.told` may want to change: kinds of warnings, and sentences with a way
    out, by the thresholds of the report's settings.
    """
    if not mixed:
        return []
    known = Report().model_dump() | dict(settings)
    found = []
    for value, trouble, remedy in _doubts(mixed):
        if grade := level(value, known):
            name = f"efficiency_{grade}"
            limit = f"{figure(value, 2)}, below `report.{name}` ({known[name]:g})"
            found.append(("efficiency", f"{trouble} {limit}. {remedy}"))
    most, worn = known["epochs_warning"], mixed["repeated"]
    over = 0 if most is None else sum(epochs > most for epochs in worn["epochs"])
    if over:
        names = ", ".join(repr(clean(name, 80)) for name in worn["names"][:over])
        who = f"{count(over)} {'group is' if over == 1 else 'groups are'} repeated more than {most:g} times"
        told = f"{who} (`report.epochs_warning`), the most {number(worn['epochs'][0])}: {names}"
        more = f" and {count(over - NAMED)} more" if over > NAMED else ""
        found.append(("repeats", f"{told}{more}. Set `mix.max_epochs`, or lower `mix.budget`"))
    return found


def _doubts(mixed: Mapping[str, Any]) -> list[tuple[float, str, str]]:
    """Each number that a threshold is held against, what a low one means, and what may be done about it."""
    rows, heavy, exact, near = mixed["rows"], mixed["heaviest"], mixed["exact"], mixed["near"]
    who = f"{clean(heavy['group'], 80)!r} has {number(heavy['weight'])} times its natural share"
    worth = f"the {count(rows['n'])} rows of the mix weigh as much as {count(rows['ess'])} of equal weight"
    alike = "with rows that are {} counted as one, the effective rows of the mix are {}{} and not {}: a share of"
    found = [
        (
            mixed["efficiency"],
            f"the shares of the groups are far from the natural ones, {who}: rho",
            "Bring the shares nearer to the natural ones (`mix.kind: temperature`, say), or add rows to that group",
        ),
        (
            rows["rho"],
            f"few rows are repeated often, {worth}: rho",
            "Bound repetition by `mix.max_epochs`, or lower `mix.budget`",
        ),
        (
            mixed["sampler"]["efficiency"],
            "what the sampler picks by group is far from what it was offered: rho",
            "Lower `sample.filter_ratio`, or set the shares in `mix` instead",
        ),
        (
            exact["ratio"],
            alike.format("exact copies", "", count(exact["ess"]), count(rows["ess"])),
            "Put `exact_duplicates` into `select`",
        ),
    ]
    if near and near["ess"] < exact["ess"]:
        told = alike.format("nearly alike", "about ", count(near["ess"]), count(rows["ess"]))
        found.append((near["ess"] / exact["ess"], told, "Put `near_duplicates` into `select`"))
    return found


def headline(mixed: Mapping[str, Any]) -> str:
    """The mix in one line, for the card."""
    rows, worn = mixed["rows"], mixed["epochs"]
    deff = "" if rows["deff"] is None else f", design effect {figure(rows['deff'], 3)}"
    group = f" (group {clean(worn['group'], 80)})" if len(mixed["groups"]) > 1 else ""
    return (
        f"Groups: rho {figure(mixed['efficiency'], 3)} of their shares against the natural ones. Rows: the "
        f"{count(rows['n'])} that are used weigh as much as {count(rows['ess'])} of equal weight (rho "
        f"{figure(rows['rho'], 3)}{deff}). At most {number(worn['most'])} epochs{group}."
    )


def renewed(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with other settings: warnings by the thresholds of the old ones are gone, those by the new stand."""
    new = dict(summary["settings"]) | dict(settings)
    notes = [*lasting(summary), *(text for _, text in warnings(summary.get("mixed"), new))]
    return {**summary, "settings": new, "notes": notes}


def lasting(summary: Mapping[str, Any]) -> list[str]:
    """The notes of a summary, or of nothing, that do not hang on its thresholds."""
    mine = {text for _, text in warnings(summary.get("mixed"), summary.get("settings", {}))}
    return [note for note in summary.get("notes", []) if note not in mine]


def shown(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page needs of the mix; None of a mix of an older version, or an empty one."""
    mixed = summary.get("mixed")
    if not mixed:
        return None
    settings, sampler, rows = summary["settings"], mixed["sampler"], mixed["rows"]
    sizes = [size for size in ("bytes", "tokens") if size in mixed["groups"][0]]
    copies = [(words, mixed[key]) for key, words in (("exact", "exact copies"), ("near", "near copies")) if mixed[key]]
    return {
        **mixed,
        "lines": [headline(mixed), RHO],
        "sizes": sizes,
        "copies": copies,
        "filtered": sampler["taken"] < sampler["of"],
        "levels": {"efficiency": level(mixed["efficiency"], settings), "rows": level(rows["rho"], settings)},
        "moved_lines": _moved_lines(mixed["moved"]),
        "shares": rounds.shares(mixed["over"]),
        "law": rounds.lines(mixed["learned"]),
    }


def _moved_lines(moved: Mapping[str, Any]) -> list[str]:
    if not moved["draws"]:
        return []
    found = []
    for way, groups, words in zip(("from", "to"), moved["groups"], ("Fewer", "More"), strict=True):
        names = ", ".join(f"{clean(name, 80)} ({count(n)})" for name, n in moved[way])
        more = f" and {count(groups - len(moved[way]))} more" if groups > len(moved[way]) else ""
        found += [f"{words}: {names}{more}."] if names else []
    return found
