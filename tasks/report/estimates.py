"""What a passport said beforehand, beside what the run took: stage by stage, and in all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tasks.report.wording import duration

FAR = 0.3
"""Ratios further from one than this are marked."""
SHORT = 1.0
"""Seconds below which neither figure says much of the other: such stages are not marked."""


def compared(passport: Mapping[str, Any], seconds: Mapping[str, float], worked: Collection[str]) -> dict[str, Any]:
    """What is to be told, as JSON: {made, rows, total, stages: [{stage, estimated, actual, stored, ratio, far, note}]}.

    Args:
        passport: As `flows.passport` makes it.
        seconds: What each stage took that is over.
        worked: Stages that had something to do. Of others nothing is compared: what the store had, cost nothing.
    """
    stages, estimated, actual = [], 0.0, 0.0
    for one in passport["stages"]:
        stage, wanted, took = one["stage"], one["seconds"], seconds.get(one["stage"])
        line = {"stage": stage, "estimated": wanted, "actual": took, "stored": one["bytes"], "ratio": None}
        line |= {"far": False, "note": _note(one, took, stage in worked)}
        if not line["note"] and took and wanted:
            estimated, actual = estimated + wanted, actual + took
            line["ratio"] = took / wanted
            line["far"] = abs(took / wanted - 1) > FAR and max(took, wanted) >= SHORT
        stages.append(line)
    total = {"estimated": estimated, "actual": actual, "ratio": actual / estimated if estimated else None}
    total["far"] = total["ratio"] is not None and abs(total["ratio"] - 1) > FAR
    return {"made": passport["made"], "rows": passport["input"]["rows"], "stages": stages, "total": total}


def _note(one: Mapping[str, Any], took: float | None, worked: bool) -> str:
    """Why a stage is not compared; empty if it is."""
    if one["done"]:
        return "done before" if not worked else "was done when this was estimated"
    if took is None:
        return "not over yet"
    if not worked:
        return "done before"
    return "not measured" if one["seconds"] is None else ""


def sentence(told: Mapping[str, Any]) -> str:
    """One line for a log: total, and the stages that were far off."""
    total = told["total"]
    if total["ratio"] is None:
        return "estimate and actual: nothing to compare"
    far = [f"{one['stage']} x {one['ratio']:.2f}" for one in told["stages"] if one["far"]]
    off = f"; beyond {FAR:.0%}: {', '.join(far)}" if far else ""
    took = f"{duration(total['estimated'])} estimated, {duration(total['actual'])} taken (x {total['ratio']:.2f})"
    return f"estimate and actual: {took}{off}"


def shown(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page shows: the comparison, with what the stages have stored; None where there was no passport."""
    told = summary.get("estimates")
    if not told:
        return None
    written = {one["stage"]: one["written"] for one in summary["stages"]}
    stages = [one | {"written": written.get(one["stage"])} for one in told["stages"]]
    changed = "" if told["rows"] == summary["rows_in"] else f"{told['rows']:,}"
    return {**told, "stages": stages, "limit": f"{FAR:.0%}", "changed": changed}
