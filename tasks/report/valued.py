"""What the page shows of the values that a sampler went by, and of the groups over steps: sentences, charts, cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.report import svg
from tasks.report.wording import count, figure, number, percent, sentence

WORDS = {
    "intra": "utility",
    "inter": "diversity",
    "reference_loss": "loss of the reference",
    "gradient_gain": "gain alone",
}
"""Names of values in words; those that are not here are words already."""
ABOUT = {
    "intra": "nuclear norm of the row's logits: high where the model says much, and something else at each position",
    "inter": "mean distance of the row's logits from those of the rows that were picked just before it",
    "total": "utility + alpha × diversity; the highest are picked",
    "loss": "how badly the model predicts the row",
    "entropy": "how unsure the model is of the row's tokens",
    "gradient_norm": "how much the row would move the model",
    "reference_loss": "how badly a model trained on held-out data predicts the row",
    "excess_loss": "loss above that of a model trained on held-out data; the highest are picked",
    "gradient_gain": "how much a step on this row alone would lower the loss on the validation rows",
    "gain": "what of that is left beside the rows of its micro-batch that were picked before it",
}
ROUNDING = 1e-6
"""A spread below this share of the other one's is what float32 leaves of it."""


def headlines(told: Mapping[str, Any]) -> list[str]:
    """What matters of the values, in sentences; backticks stand around names of settings. See `shown`."""
    name = told["values"][-1]
    way = "one after the other, by what each still adds" if told["kind"] == "greats" else f"by the highest {word(name)}"
    be = "is" if told["taken"] == 1 else "are"
    lines = [f"Of every {count(told['micro_batch'])} candidates {count(told['taken'])} {be} picked, {way}."]
    every, picks = told["means"][name]
    if every is None:
        lines.append(f"No candidate has a finite {word(name)}.")
    elif picks is not None:
        lines.append(
            f"The mean {word(name)} is {number(picks)} among the picks and {number(every)} among all candidates."
        )
    return lines + (_what_alpha_does(told) if told["terms"] else [])


def _what_alpha_does(told: Mapping[str, Any]) -> list[str]:
    """Whether `alpha` changes what is picked, and which `alpha` would make both terms vary alike."""
    terms, alpha = told["terms"], told["alpha"]
    spread, picks = terms["spread"], terms["picks"]
    if not picks:
        return []
    if alpha == 0:
        return ["`alpha` is 0: utility alone decides."]
    others = picks - terms["agree"]["intra"]
    lines = [f"{percent(others, picks)} of the picks are rows that utility alone (`alpha` 0) would not have picked."]
    if not others:
        lines = ["With utility alone (`alpha` 0) the same rows would be picked."]
    if spread["intra"] == 0:
        return [*lines, "All candidates of a micro-batch have the same utility: diversity decides."]
    ratio = spread["inter"] / spread["intra"]
    if ratio < ROUNDING:
        return [*lines, "Within a micro-batch `alpha` × diversity hardly varies at all beside utility; raise `alpha`."]
    lines.append(f"Within a micro-batch `alpha` × diversity varies {figure(ratio, 2)} times as much as utility")
    lines[-1] += f"; at an `alpha` of about {figure(alpha / ratio, 2)} both would vary alike." if alpha else "."
    return lines


def word(name: str) -> str:
    """The name of a value as a reader knows it."""
    return WORDS.get(name, name.replace("_", " "))


def shown(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page needs of the sampler's values; None where nothing is known of them.

    Args:
        summary: See `tasks.report.html`; `utility` is what `tasks.report.utility.found` returns with `kind`,
            `micro_batch, taken, alpha` and `rows` (`high`, `low`).
    """
    told = summary.get("utility")
    if not told:
        return None
    most, value = summary["settings"]["gallery_rows"], told["values"][-1]
    kinds = (("high", f"Highest {word(value)}"), ("low", f"Lowest {word(value)}"))
    return {
        "lines": headlines(told),
        "draws": told["draws"],
        "picked": told["picked"],
        "charts": [_chart(one, told) for one in told["distributions"]],
        "missing": [(word(name), n) for name, n in told["missing"].items() if n],
        "terms": _terms(told),
        "over": _over(told["over"]),
        "thinned": told["over"] and len(told["over"]["first"]) < told["over"]["steps"],
        "names": {name: word(name) for name in told["values"]},
        "rows": [(title, told["rows"][end][:most]) for end, title in kinds if told["rows"][end][:most]],
    }


def _chart(one: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    from markupsafe import Markup

    name = one["name"]
    title = f"Distribution of the {word(name)} among candidates and picks"
    drawing = svg.histogram(one["edges"], one["before"], one["after"], [], title=title, across=word(name), up="share")
    facts = {"title": sentence(word(name)), "name": name, "about": ABOUT.get(name, ""), "outside": one["outside"][0]}
    return facts | {"means": told["means"][name], "drawing": Markup(drawing)}


def _terms(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The table of the two terms of UDS; None where there is nothing to compare."""
    terms = told["terms"]
    if not terms or not terms["picks"] or told["micro_batch"] < 2:
        return None
    names = (("intra", "utility"), ("inter", "alpha × diversity"))
    lines = [
        {"name": words}
        | {key: terms[key][name] for key in ("correlation", "spread")}
        | {"agree": percent(terms["agree"][name], terms["picks"])}
        for name, words in names
    ]
    chance = percent(terms["agree"]["chance"], terms["picks"])
    return {"lines": lines, "chance": chance, "batches": terms["batches"], "left_out": terms["left_out"]}


def _over(over: Mapping[str, Any] | None) -> Any:
    """Diversity over steps, of candidates and of picks."""
    from markupsafe import Markup

    if not over or not any(value is not None for value in over["bins"]["candidates"]):
        return ""
    lines = [("before", "candidates"), ("after", "picks")]
    return Markup(svg.over_steps(over, lines, "candidates", title="Diversity, step by step", up="diversity", least=0))


def sources(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page needs of the groups over steps; None where there is one group or no batch.

    Returns:
        `drawings`: title and drawing, one alone where everything was picked; `rows`: of each group its CSS class, its
        name, its share of candidates and of picks, and how much of it was picked; `filtered`: whether there was a
        choice; `thinned`: whether a place in a drawing is more than one step.
    """
    from markupsafe import Markup

    told = summary.get("sources")
    if not told:
        return None
    names = [*told["names"], f"{count(told['others'])} other{'s' if told['others'] > 1 else ''}"]
    known = range(len(names) if told["others"] else len(told["names"]))
    sums = {kind: [sum(told[kind][one]) for one in known] for kind in ("candidates", "picks")}
    rows = [
        {
            "class": _shade(one, told),
            "name": names[one],
            "candidates": percent(sums["candidates"][one], sum(sums["candidates"])),
            "picks": percent(sums["picks"][one], sum(sums["picks"])),
            "rate": percent(sums["picks"][one], sums["candidates"][one]),
        }
        for one in known
    ]
    filtered = told["candidates"] != told["picks"]
    titles = (("candidates", "Candidates"), ("picks", "Picked")) if filtered else (("picks", "Batches"),)
    drawings = []
    for kind, title in titles:
        areas = [(_shade(one, told), told[kind][one]) for one in known]
        name = f"Shares of the groups, step by step: {title.lower()}"
        drawings.append((title, Markup(svg.stacked(told["first"], told["steps"], areas, title=name))))
    thinned = len(told["first"]) < told["steps"]
    return {"drawings": drawings, "rows": rows, "filtered": filtered, "thinned": thinned, "steps": told["steps"]}


def _shade(one: int, told: Mapping[str, Any]) -> str:
    return f"s{one}" if one < len(told["names"]) else "rest"
