"""What a select by pools of score buckets went by: its buckets, each pool's predicted error, where the best change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.states import State
from tasks.report import svg
from tasks.report.wording import count, figure, number, short

if TYPE_CHECKING:
    from markupsafe import Markup

KIND = "pools"
MOST_LINES = 8
"""Pools that are drawn: that of one bucket, that of all, the best ones, and some between."""
MOST_BUCKETS = 40
MOST_CROSSINGS = 12


# --------------------------------------------------------------------------------------------------------------- facts
def facts(state: State) -> dict[str, Any] | None:
    """What a fitted select's state says, JSON-ready; None where no row had a score.

    `samples_seen`, `best` (buckets of the best pool), `errors` (at `samples_seen`, of the pools of 1, 2, ... buckets),
    `buckets` (best score first: {rows, low, high, utility, half_life, kept}), `pools`, `samples` and `curves` (errors
    of these pools at these samples seen), `crossings` ([samples seen, buckets of the pool that is the best from there
    on]), `scale`, `floor`, `variant`, and `measured`: {samples, errors by bucket} where utilities were fitted, or None.
    """
    if not len(state["lowest"]):
        return None
    columns = {"rows": "rows", "low": "low", "high": "high", "utility": "utilities", "half_life": "half_lives"}
    parts = {name: [_number(one) for one in state[stored].tolist()] for name, stored in columns.items()}
    buckets = [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    measured = {"samples": state["measured_samples"].tolist(), "errors": state["measured_errors"].tolist()}
    return {
        "samples_seen": int(state["samples_seen"]),
        "best": int(state["best"]),
        "errors": [_number(one) for one in state["errors"].tolist()],
        "buckets": [one | {"kept": bool(kept)} for one, kept in zip(buckets, state["kept"], strict=True)],
        "pools": state["pools"].tolist(),
        "samples": state["samples"].tolist(),
        "curves": [[_number(one) for one in row] for row in state["curves"].T.tolist()],
        "crossings": [[int(n), int(pool)] for n, pool in state["crossings"].tolist()],
        "scale": float(state["scale"]),
        "floor": float(state["floor"]),
        "variant": bytes(state["variant"]).decode(),
        "measured": measured if len(measured["samples"]) else None,
    }


def met(told: Mapping[str, Any] | None) -> str:
    """The choice in a few words; empty where there is none."""
    if not told:
        return ""
    best, every = told["best"], len(told["buckets"])
    which = f"all {every} buckets" if best == every else f"{best} of {every} buckets"
    return f"best pool for {count(told['samples_seen'])} samples seen: {which}, error {_error(told, best)} predicted"


def _number(value: float) -> float | int | None:
    """A number that JSON knows, its digits of no meaning left out."""
    if isinstance(value, int):
        return value
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _error(told: Mapping[str, Any], pool: int) -> str:
    value = told["errors"][pool - 1]
    return "–" if value is None else figure(value)


# ---------------------------------------------------------------------------------------------------------------- page
def shown(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows; None where there is nothing.

    Args:
        told: From `facts`, or from the report of an older version, which has none.
    """
    if not told:
        return None
    drawn = lines(told)
    return {
        "met": met(told),
        "drawing": _drawing(told, drawn),
        "legend": [(f"s{i}", "1 bucket" if pool == 1 else f"{pool} buckets") for i, pool in enumerate(drawn)],
        "crossings": [(short(n), pool) for n, pool in told["crossings"][:MOST_CROSSINGS]],
        "more_crossings": max(0, len(told["crossings"]) - MOST_CROSSINGS),
        "compared": len(told["pools"]) if len(told["pools"]) < len(told["buckets"]) else 0,
        "buckets": [_bucket(i, one) for i, one in enumerate(told["buckets"][:MOST_BUCKETS])],
        "others": max(0, len(told["buckets"]) - MOST_BUCKETS),
        "variant": told["variant"],
        "constants": f"a {number(told['scale'])}, d {number(told['floor'])}",
        "fitted": bool(told["measured"]),
        "curves": _curves(told),
        "samples": [short(int(n)) for n in told["measured"]["samples"]] if told["measured"] else [],
    }


def lines(told: Mapping[str, Any]) -> list[int]:
    """The pools that are drawn, by buckets, ascending."""
    pools = told["pools"]
    wanted = [told["best"], pools[0], pools[-1], *(pool for _, pool in told["crossings"])]
    between = [pools[round(i)] for i in np.linspace(0, len(pools) - 1, MOST_LINES).tolist()]
    return sorted(list(dict.fromkeys([*wanted, *between]))[:MOST_LINES])


def _drawing(told: Mapping[str, Any], drawn: list[int]) -> Markup:
    from markupsafe import Markup

    curves = [told["curves"][told["pools"].index(pool)] for pool in drawn]
    known = [
        (f"s{i}", [(n, y) for n, y in zip(told["samples"], c, strict=True) if y is not None])
        for i, c in enumerate(curves)
    ]
    best = [min((y for y in row if y is not None), default=None) for row in zip(*told["curves"], strict=True)]
    marks = [(n, _between(told["samples"], best, n)) for n, _ in told["crossings"]]
    return Markup(svg.errors_by_samples(known, [(n, y) for n, y in marks if y is not None], told["samples_seen"]))


def _between(samples: list[float], values: list[float | None], n: float) -> float | None:
    """The value at `n`, between its neighbours on a log axis."""
    known = [(math.log(x), y) for x, y in zip(samples, values, strict=True) if y is not None]
    if not known:
        return None
    return float(np.interp(math.log(n), [x for x, _ in known], [y for _, y in known]))


def _bucket(place: int, one: Mapping[str, Any]) -> dict[str, Any]:
    ends = ["∞" if one[name] is None else figure(one[name]) for name in ("low", "high")]
    half_life = "∞" if one["half_life"] is None else figure(one["half_life"])
    told = {"number": place + 1, "rows": count(one["rows"]), "range": " – ".join(ends), "kept": one["kept"]}
    return told | {"utility": figure(one["utility"]), "half_life": half_life}


def _curves(told: Mapping[str, Any]) -> list[list[str]]:
    measured = told["measured"]
    return [[figure(y, 3) for y in row] for row in measured["errors"][:MOST_BUCKETS]] if measured else []
