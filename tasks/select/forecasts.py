"""Forecasts of selects between methods and the store: shard by shard, then summed, told before anything is decided."""

from __future__ import annotations

from typing import Any

from storage import files
from storage.shards import Shard
from storage.states import State
from storage.steps import Step
from storage.view import View
from tasks.select.decisions import rows_of

EXCHANGE = "forecasts"
FORECAST = "_forecast.json"
"""`forecast`: the sums over all shards; `told`: what the method says of them."""


def write_forecast(step: Step, view: View, method: Any, state: State, shard: Shard) -> None:
    """Forecast a shard's alive rows; kept until the step is done."""
    sums = method.forecast(rows_of(view, shard, method.needs), state)
    files.write_json(step.file(f"spill/{EXCHANGE}/{shard.digest}.json"), sums)


def sum_forecasts(step: Step, method: Any, state: State, shards: list[Shard]) -> None:
    """Write the sum of all shards' forecasts, added in the order of the shards, and the line about it."""
    sums: dict[str, float] = {}
    for shard in shards:
        for name, value in files.read_json(step.file(f"spill/{EXCHANGE}/{shard.digest}.json")).items():
            sums[name] = sums.get(name, 0) + value
    files.write_json(step.file(FORECAST), {"forecast": sums, "told": method.told(state, sums)})
