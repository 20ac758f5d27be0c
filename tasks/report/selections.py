"""What the page shows of each select: sizes of its groups, strips of them, rows kept by cut, its classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.report import pools, svg
from tasks.report.cuts import ALIKE
from tasks.report.duplicates import KINDS, STRIPS, shares
from tasks.report.wording import count, figure

if TYPE_CHECKING:
    from markupsafe import Markup

ABOUT = {
    "groups": "About: rows stand in groups, each around its keeper, and at another cut the groups would be others.",
    "classes": "About: as if one cut held for all; now each class has its own.",
    "": "",
}
MEASURES = {
    **dict.fromkeys(ALIKE, "similarity"),
    "facility_location": "gain",
    "gais": "importance",
    "k_center": "distance",
}
"""What the scores of a kind are."""
NOTHING = {"kind": "", "met": "", "sizes": None, "curve": None, "classes": None, "pools": None}


def shown(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The selects of which there is something to show, in order.

    Args:
        summary: See `tasks.report.html`. Those of older versions have no `selects`, and no `why` in `duplicates`.
    """
    stages = {row["stage"]: row for row in summary["funnel"]}
    selects = {one["stage"]: {**NOTHING, **one} for one in summary.get("selects", [])}
    for stage in dict.fromkeys(group["stage"] for group in summary["duplicates"]):
        row = stages.get(stage, {"rows_in": 0, "kept": 0, "kind": ""})
        selects.setdefault(
            stage, {**NOTHING, "stage": stage, "kind": row["kind"], "rows": row["rows_in"], "kept": row["kept"]}
        )
    found = []
    for one in sorted(selects.values(), key=lambda one: [*stages, one["stage"]].index(one["stage"])):
        made = {"strips": _strips(one, summary), "bars": _bars(one), "drawing": _drawing(one), "boxes": _boxes(one)}
        made["pools"] = pools.shown(one["pools"])
        if any(made.values()):
            measure = MEASURES.get(one["kind"], "score")
            ordered = bool(one["sizes"] and one["curve"])  # scores of older versions are in no order
            found.append(
                one
                | made
                | {"measure": measure, "ordered": ordered, "about": ABOUT[(one["curve"] or {}).get("about", "")]}
            )
    return found


def _strips(select: Mapping[str, Any], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The select's groups, as many as the settings ask for, each with what it is an example of."""
    most, sizes = summary["settings"]["gallery_rows"], select["sizes"]
    wanted = shares(most) | {"": min(STRIPS, most)}
    words = dict.fromkeys(wanted, "")
    if sizes and sizes["largest"][0] > 2:  # else they are all alike
        words |= {"largest": "one of the largest", "typical": "the median size", "random": "picked at random"}
    found = []
    for group in summary["duplicates"]:
        why = group.get("why", "")
        if group["stage"] == select["stage"] and wanted[why]:
            wanted[why] -= 1
            more = max(0, group["dropped"] - len(group["members"]))
            found.append(group | {"rows": group["dropped"] + 1, "words": words[why], "more": more})
    return sorted(found, key=lambda group: [*KINDS, ""].index(group.get("why", "")))


def _bars(select: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Number of groups by size, with the widths of their bars in per cent."""
    bins = select["sizes"]["bins"] if select["sizes"] else []
    most = max((groups for *_, groups in bins), default=1)
    return [
        {"size": count(low) if low == high else f"{count(low)} – {count(high)}", "groups": n, "width": _per(n, most)}
        for low, high, n in bins
    ]


def _drawing(select: Mapping[str, Any]) -> Markup | None:
    """The curve of the rows kept by cut; None where there is none."""
    from markupsafe import Markup

    curve = select["curve"]
    return Markup(svg.kept_by_cut(curve["points"], curve["cut"], select["kept"])) if curve else None


def _boxes(select: Mapping[str, Any]) -> dict[str, Any] | None:
    """The classes with widths and places in per cent, on one scale of scores; None without classes."""
    classes = select["classes"]
    if not classes:
        return None
    rows = [one for one in classes["shown"] if one["score"] and all(math.isfinite(value) for value in one["score"])]
    low, high = min((one["score"][0] for one in rows), default=0), max((one["score"][-1] for one in rows), default=0)
    most = max(one["rows"] for one in classes["shown"])
    scored = [one["name"] for one in rows] if high > low else []
    shown = [
        one
        | {"rows_width": _per(one["rows"], most), "kept_width": _per(one["kept"], most)}
        | {"at": [_per(value - low, high - low) for value in one["score"]] if one["name"] in scored else None}
        | {"told": ", ".join(figure(value, 3) for value in one["score"]) if one["name"] in scored else ""}
        for one in classes["shown"]
    ]
    left = {name: classes[name] for name in ("others", "rows", "kept")}
    return {"shown": shown, "left": left, "low": figure(low, 3), "high": figure(high, 3), "scored": bool(scored)}


def _per(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}" if whole else "0"
