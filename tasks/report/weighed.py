"""What is known of a mix whose rows were weighed: of each group, of all rows, with copies as one, of the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.mix import ess
from tasks.mix.ess import Sums
from tasks.report import rounds
from tasks.report.sources import largest
from tasks.report.subject import Picking
from tasks.report.wording import by_count

MOST_GROUPS = 60
"""Groups told one by one; the others are summed."""
SUMMED = ("rows", "draws", "uses", "kept", "bytes", "tokens", "planned", "drawn", "achieved")
NAMED = 3
"""Groups that a sentence names."""


def told(
    weights: Mapping[str, Any], plan: Mapping[str, Any], how: Picking, cells: tuple[str, int] | None
) -> dict[str, Any] | None:
    """What is known of the mix, JSON-ready; None where no row is in it.

    Args:
        weights: From `tasks.report.concentration.gather`.
        plan: What the mix's step says of itself; older ones know nothing of `planned` and `facts`.
        how: The batches were picked.
        cells: The column that near copies are found by, and hyperplanes; None: they were not looked for.
    """
    rows, drawn = Sums(*weights["rows"]), Sums(*weights["drawn"])
    if not rows.n:
        return None
    names, pool, counts = plan["groups"], np.array(plan["rows"], np.float64), np.array(plan["counts"], np.int64)
    found = {name: np.array(values) for name, values in weights["groups"].items()}
    planned = np.array(plan.get("planned") or counts / np.maximum(1, counts.sum(axis=1, keepdims=True))).mean(axis=0)
    groups = _groups(names, pool, counts.sum(axis=0), planned, found)
    order = largest(found["uses"].tolist(), names, len(names))
    shown, rest = [groups[at] for at in order[:MOST_GROUPS]], [groups[at] for at in order[MOST_GROUPS:]]
    worn = max(groups, key=lambda one: one["epochs"])
    return {
        "kind": how.mixed.kind,
        "rounds": len(counts),
        "draws": int(counts.sum()),
        "pool": int(pool.sum()),
        "efficiency": ess.mix_efficiency(found["uses"], pool),
        "effective_groups": ess.effective_number(found["uses"]),
        "rows": _of(rows) | {"top": weights["top"]},
        "exact": _copies(Sums(*weights["exact"]), rows, None),
        "near": _copies(Sums(*weights["near"]), rows, cells) if weights["near"] and cells else None,
        "sampler": {"kind": how.kind, "taken": how.taken, "of": how.micro_batch, "draws": int(found["draws"].sum())}
        | {"drawn": _of(drawn), "efficiency": ess.mix_efficiency(found["uses"], found["draws"])},
        "groups": shown,
        "others": _summed(rest) if rest else None,
        "epochs": {"group": worn["group"], "most": worn["epochs"]},
        "repeated": _repeated(groups),
        "heaviest": _heaviest(groups),
        "moved": _moved(names, planned, counts),
        "over": rounds.drawn(counts, names),
        "learned": rounds.learned(plan.get("facts") or {}),
    }


def _of(one: Sums) -> dict[str, Any]:
    deff = one.deff if one.ess else None
    return {"n": one.n, "ess": one.ess, "rho": one.rho, "deff": deff, "largest": one.share}


def _copies(one: Sums, rows: Sums, cells: tuple[str, int] | None) -> dict[str, Any]:
    """Weights by copy: `n` of them, their `ess`, and `ratio`, what of the rows' is left."""
    by = {"by": cells[0], "bits": cells[1] if cells[0].endswith("_embedding") else None} if cells else {}
    return {"n": one.n, "ess": one.ess, "ratio": one.ess / rows.ess if rows.ess else 1.0} | by


def _groups(
    names: Sequence[str], pool: np.ndarray, drawn: np.ndarray, planned: np.ndarray, found: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Every group: {group, rows, draws, uses, kept, planned, drawn, achieved, epochs, weight, ess, rho, sizes}."""
    uses, natural = found["uses"], pool / max(1, pool.sum())
    achieved, shares = uses / max(1, uses.sum()), drawn / max(1, drawn.sum())
    groups = []
    for at, name in enumerate(names):
        mine = Sums(int(found["kept"][at]), uses[at], found["squares"][at], found["most"][at])
        groups.append(
            {"group": name, "rows": int(pool[at]), "draws": int(drawn[at]), "uses": int(uses[at]), "kept": mine.n}
            | {"planned": float(planned[at]), "drawn": float(shares[at]), "achieved": float(achieved[at])}
            | {"epochs": float(uses[at] / max(1, pool[at])), "weight": float(achieved[at] / (natural[at] or 1))}
            | {"ess": float(mine.ess), "rho": float(mine.rho)}
            | {size: int(found[size][at]) for size in ("bytes", "tokens") if size in found}
        )
    return groups


def _summed(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"groups": len(groups)} | {name: sum(one[name] for one in groups) for name in SUMMED if name in groups[0]}


def _repeated(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs of the groups with more than one, descending, and the names of the most repeated."""
    over = sorted((one for one in groups if one["epochs"] > 1), key=lambda one: (-one["epochs"], one["group"]))
    return {"epochs": [one["epochs"] for one in over], "names": [one["group"] for one in over[:NAMED]]}


def _heaviest(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The group that adds the most to sum p^2 / q: what makes the efficiency low."""
    one = max(groups, key=lambda one: one["achieved"] * one["weight"])
    return {name: one[name] for name in ("group", "weight", "rows", "achieved")}


def _moved(names: Sequence[str], planned: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """What bounds on repetition took from groups and gave to others, in draws; rounding is not told of."""
    drawn = counts.sum(axis=0)
    change = np.rint(drawn - planned * drawn.sum()).astype(np.int64)
    change[np.abs(change) <= len(counts)] = 0
    sums = {"from": np.maximum(-change, 0), "to": np.maximum(change, 0)}
    return {
        "draws": int(sums["from"].sum()),
        **{way: by_count(dict(zip(names, one.tolist(), strict=True)))[:NAMED] for way, one in sums.items()},
        "groups": [int((one > 0).sum()) for one in sums.values()],
    }
