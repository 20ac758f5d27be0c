"""A configuration as it is for a sample of the rows: budgets in proportion, batches that the sample can fill, short
trainings."""

from __future__ import annotations

from typing import Any

from configs import loading
from configs.curate import Curate
from configs.errors import MixwrightError
from configs.methods.learned import Learned
from configs.section import Section

PLAIN_RUNNER = {"kind": "threads", "address": None, "gpus_per_task": 0}


def shrunk(config: Curate, inputs: list[dict[str, Any]], folder: str, ratio: float, *, learn: bool) -> dict[str, Any]:
    """The values of a configuration over a sample that is `ratio` of the rows, with its store in `folder`.

    Args:
        config: The user's.
        inputs: The sample's.
        folder: Where store and mix are put.
        ratio: Rows of the sample by rows of the input.
        learn: Train what a learned mix trains, for a few steps; else rows are mixed as they occur.
    """
    values = config.model_dump(mode="json")
    values |= {"name": "sample", "store": f"{folder}/store", "storage": {}, "max_quarantine_fraction": 1.0}
    values["input"] = inputs if len(inputs) > 1 or inputs[0]["name"] else inputs[0]
    values["emit"]["out"] = f"{folder}/out"
    values["runner"] |= PLAIN_RUNNER
    values["score"] = [scaled(one.model_dump(mode="json"), ratio, learns=True) for one in config.score]
    values["select"] = [_select(one, ratio) for one in config.select]
    values["mix"] = _mix(config.mix, ratio, learn=learn)
    return values


def scaled(values: dict[str, Any], ratio: float, *, learns: bool) -> dict[str, Any]:
    """Sizes of a section in proportion to the rows; `learns`: also the rows that it learns from."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(value, dict):
            found[name] = scaled(value, ratio, learns=learns)
        elif number and _is_size(name):
            found[name] = max(1, round(value * ratio))
        elif number and name == "threshold" and values.get("kind") == "balance":
            found[name] = max(1.0, value * ratio)
        elif number and name == "train_rows" and learns:
            found[name] = max(min(value, 100), round(value * ratio))
        else:
            found[name] = value
    return found


def _is_size(name: str) -> bool:
    """Whether a setting counts what there is more of in more rows."""
    return name in ("budget", "samples_seen") or (name.startswith(("target_", "budget_")) and name != "target_fraction")


def _select(section: Section, ratio: float) -> dict[str, Any]:
    short = section.shortened()[0]
    return scaled(short.model_dump(mode="json"), ratio, learns=short is section)


def _mix(section: Any, ratio: float, *, learn: bool) -> dict[str, Any]:
    """The mix for a sample: laws that look at counts alone cost the same, so none can refuse the sample's groups."""
    short = section.shortened()[0].model_dump(mode="json")
    shared = {name: short[name] for name in short if name == "groups" or name.startswith("budget")}
    found = short if learn and isinstance(section, Learned) else {"kind": "natural", **shared}
    found = scaled(found | {"max_epochs": None}, ratio, learns=False)
    if isinstance(section.groups, Section):  # a score of this kind that is listed learns from as many rows
        found["groups"] = scaled(short["groups"], ratio, learns=True)
    return found


def with_batches(values: dict[str, Any], survivors: int) -> dict[str, Any]:
    """The configuration with batches that so many rows fill twice at least; as it is if they do, or if none fits."""
    section = loading.validate(values).sample
    most = survivors // 2
    if section.superbatch <= most or not most:
        return values
    size = section.world_size * max(1, int(most * (1 - section.filter_ratio)) // section.world_size)
    while size < section.batch_size:
        given = values["sample"] | {"batch_size": size, "superbatch_size": None, "rounding": "nearest"}
        if "chunks" in given:
            given["chunks"] = min(given["chunks"], max(1, size // section.world_size))
        try:
            loading.validate(values | {"sample": given})
        except (MixwrightError, ValueError):  # too small for its filter ratio, say
            size += section.world_size
        else:
            return values | {"sample": given}
    return values


def factors(config: Curate) -> dict[str, float]:
    """How much longer the trainings are than the shortened ones, by stage."""
    sections: list[tuple[str, Section]] = [*((f"select/{one.kind}", one) for one in config.select), ("mix", config.mix)]
    shortened = [(stage, section, *section.shortened()) for stage, section in sections]
    return {stage: factor for stage, section, short, factor in shortened if short is not section}
