"""The plan of a run: which steps there are, what each reads and makes, and the fingerprint that names it.

Nothing here computes; no heavy library is imported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from configs.curate import Curate
from configs.errors import StageError
from configs.methods import logits
from configs.section import Section
from storage import shards
from storage.fingerprints import fingerprint, source_digest, versions
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks import annotate, embed, ingest, load, mix, sample, score, select
from tasks.annotate import thresholds
from tasks.mix.budgets import Budget
from tasks.sample import targets
from tasks.select import targets as sizes

FOUNDATIONS = ("numpy", "pyarrow", "numba")
"""Libraries that every method stands on."""


@dataclass(frozen=True)
class Planned:
    """A step, what it sees, and its method's configuration."""

    step: Step
    view: View
    config: Any
    method: Any
    label: str
    """The step's name in ledger and report: `embed`, `score/alignment`, `select/threshold`."""


def input_view(config: Curate) -> View:
    """What the inputs themselves offer: their columns under the names that methods use."""
    return View(config.roles)


def facts_of(methods: dict[str, str], kind: str, method: Any) -> dict[str, Any]:
    """What a method's numbers depend on besides its configuration: its source, its libraries, its device."""
    facts: dict[str, Any] = {"source": source_digest(methods[kind].split(":")[0])}
    facts["versions"] = versions((*FOUNDATIONS, *getattr(method, "libraries", ())))
    return facts | (method.depends_on() if hasattr(method, "depends_on") else {})


def with_columns(view: View, columns: tuple[str, ...]) -> View:
    """The view in which `columns`, which the user named, are the input's own, whatever else bears such a name."""
    sidecars = {name: step for name, step in view.sidecars.items() if name not in columns}
    return replace(view, inputs=view.inputs | {name: name for name in columns}, sidecars=sidecars)


def input_parts(view: View, needs: tuple[str, ...]) -> dict[str, str]:
    """Which input columns stand behind `needs`."""
    return {name: view.inputs[name] for name in needs if name not in view.sidecars}


def per_shard(
    store: str, stage: str, section: Section, methods: dict[str, str], view: View, **context: Any
) -> tuple[Planned, View]:
    """Plan a per-shard step; returns it and the view behind it.

    Of `context`, `extra` goes into the fingerprint, and `learnt` does so where the method learns from all rows.
    """
    extra, learnt, who = context.pop("extra", {}), context.pop("learnt", {}), context.pop("who", "")
    kind = section.kind  # type: ignore[attr-defined]
    method = load(methods, section, **context)
    extra = extra | (learnt if learns_from_rows(method) else {})
    seen = with_columns(view, getattr(method, "input_columns", ()))
    seen.require(method.needs, who or f"{stage}: {kind}", getattr(method, "remedy", ""))
    parts = {
        "stage": stage,
        "kind": kind,
        "config": section.output_fields(),
        "inputs": input_parts(seen, method.needs),
        "parents": seen.parents(method.needs),
        **facts_of(methods, kind, method),
        **extra,
    }
    step = Step(store, stage, kind, fingerprint(parts))
    label = stage if stage in ("embed", "annotate") else f"{stage}/{kind}"
    return Planned(step, seen, section, method, label), view.after(step, method.provides)


def learns_from_rows(method: Any) -> bool:
    """Whether a method learns from all rows first: it has `fit`, and does not say that its fit reads none."""
    return hasattr(method, "fit") and getattr(method, "learns_from_rows", True)


def conversion_step(config: Curate, section: Any) -> Step:
    """The step that makes Parquet shards of one input that has none; its units are known by their URLs."""
    left_out = {"path", "name", "exclude", "unsupported"}
    parts = {
        "stage": "convert",
        "config": section.model_dump(mode="json", exclude=left_out),
        "source": [source_digest(ingest.METHODS[section.kind].split(":")[0]), source_digest("tasks.ingest.conversion")],
        "versions": versions(("pyarrow",)),
    }
    return Step(config.store, "ingest", section.kind, fingerprint(parts))


def ingest_step(config: Curate) -> Step:
    """The ingest step."""
    columns = {role: config.roles.get(role) for role in ("image", "text")}
    facts = {"source": source_digest("tasks.ingest.identities"), "versions": versions(("pyarrow", "blake3"))}
    return Step(config.store, "ingest", "parquet", fingerprint({"stage": "ingest", "columns": columns, **facts}))


def embed_step(config: Curate, view: View) -> tuple[Planned, View]:
    """The embed step; `config.embed` is not None."""
    columns = tuple(name for name in ("image", "text") if name in view.inputs)
    return per_shard(config.store, "embed", config.embed, embed.METHODS, view, columns=columns)  # type: ignore[arg-type]


def annotate_section(config: Curate) -> Any:
    """The annotate section, told of the embed section if it wants to know, and of thresholds that a file holds."""
    section: Any = config.annotate
    return thresholds.resolved(section.behind(config.embed) if hasattr(section, "behind") else section)


def annotate_step(config: Curate, view: View, state: str | None) -> tuple[Planned, View]:
    """The annotate step; `state` is the digest of its frozen state, if it has one."""
    section = annotate_section(config)
    extra: dict[str, Any] = {"state": state}
    if config.roles.get("source") in (getattr(section, "column", None), getattr(section, "scores", None)):
        # Where the inputs' names stand for a column, the shards' digests do not tell them.
        extra["sources"] = [[one.name, one.source] for one in config.inputs]
    return per_shard(config.store, "annotate", section, annotate.METHODS, view, extra=extra)


def score_steps(config: Curate, view: View, every: list[Shard]) -> tuple[list[Planned], View]:
    """The score steps in order; one that learns from all rows is another one when shards come, or rows fail before."""
    planned = []
    for section, who in score_sections(config):
        learnt = global_parts(view, every)
        step, view = per_shard(config.store, "score", section, score.METHODS, view, who=who, learnt=learnt)
        planned.append(step)
    return planned, view


def score_sections(config: Curate) -> list[tuple[Any, str]]:
    """The scores that are listed, and those that selects and the sampler want made, unless what makes the same column
    is there.

    Each with who asked for it, as errors name it.

    Raises:
        StageError: One column is wanted with two settings.
    """
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    wanted: list[tuple[Any, str]] = [(section, f"score: {section.kind}") for section in config.score]
    wanted += [(section, f"select: {one.kind}") for one in config.select for section in one.prepares()]
    wanted += [(section, f"mix: {config.mix.kind}") for section in config.mix.prepares()]
    wanted += [(section, f"sample: {config.sample.kind}") for section in config.sample.prepares()]
    for section, who in wanted:
        section = logits.resolved(section, config.embed)
        first, its = found.setdefault((section.kind, getattr(section, "column", "")), (section, who))
        # What is listed may differ from what somebody wants by default, not from what was asked for.
        fields = section.model_fields_set if its.startswith("score:") else set(type(section).model_fields)
        for name in sorted(fields - section.operational):
            if getattr(first, name) != getattr(section, name):
                raise StageError(
                    f"`{its}` and `{who}` want one `{section.kind}` with two settings of `{name}`; make them agree, or "
                    "give them in one place alone"
                )
    return list(found.values())


def select_steps(config: Curate, view: View, every: list[Shard]) -> tuple[list[Planned], View]:
    """The selects in order, each behind the ones before it. Those of one kind are numbered in their labels."""
    planned: list[Planned] = []
    for section in config.select:
        method = load(select.METHODS, section, seed=config.seed)
        needs, seen = sizes.needs(method, section), with_columns(view, getattr(method, "input_columns", ()))
        seen.require(needs, f"select: {section.kind}")
        parts = global_parts(view, every) | {"config": section.output_fields(), "seed": config.seed}
        parts |= {"needs": seen.parents(needs), "inputs": input_parts(seen, needs)}
        around = ["decisions", *(["linking"] if hasattr(method, "keys") else [])]
        parts |= {"deciding": [source_digest(f"tasks.select.{name}") for name in around]} | facts_of(
            select.METHODS, section.kind, method
        )
        step = Step(config.store, "select", section.kind, fingerprint({"stage": "select", **parts}))
        same = sum(other.config.kind == section.kind for other in planned)
        label = f"select/{section.kind}" + (f"#{same + 1}" if same else "")
        planned.append(Planned(step, seen, section, method, label))
        view = view.selected(step)
    return planned, view


def global_parts(view: View, every: list[Shard]) -> dict[str, Any]:
    """What every global step depends on: the shards, and which of their rows are alive."""
    alive = [step.fingerprint for step in (*view.failing, *view.decisions)]
    return {"shards": shards.set_digest(every), "alive": alive}


def planned_draws(config: Curate) -> int | None:
    """Draws that fill the budget: the sampler keeps b of every B. None: every surviving row once."""
    if config.mix.budget is None:
        return None
    steps = config.mix.budget // config.sample.batch_size
    return steps * config.sample.superbatch


def planned_budget(config: Curate) -> Budget:
    """What the mix may draw: rows, or the bytes or tokens of whole batches."""
    mixture = config.mix
    size = mixture.budget_bytes or mixture.budget_tokens
    return Budget(planned_draws(config), size, config.sample.batch_size, config.sample.superbatch)


def group_column(config: Curate, view: View) -> str | None:
    """The column whose values are the groups of the mix; None: there is one group."""
    groups = config.mix.groups
    return groups.column if isinstance(groups, Section) else groups or view.inputs.get("source")


def mix_step(config: Curate, view: View, every: list[Shard]) -> Planned:
    """The mix step: it knows the sampler's filter ratio (through the number of draws) and nothing else of it."""
    section, draws = config.mix, planned_draws(config)
    method = load(mix.METHODS, section, seed=config.seed)
    group, needs = group_column(config, view), getattr(method, "needs", ())
    named = isinstance(section.groups, Section)
    seen = with_columns(view, (*((group,) if group and not named else ()), *getattr(method, "input_columns", ())))
    needs = (*needs, *section.size_columns)
    seen.require(needs, f"mix: {section.kind}", getattr(method, "remedy", ""))
    parts = global_parts(view, every) | {"seed": config.seed, "draws": draws, "group": group}
    parts |= {"budget": asdict(planned_budget(config))} if section.size_columns else {}
    fields = {k: v for k, v in section.output_fields().items() if k not in ("budget", "groups")}
    parts |= {"config": fields, **facts_of(mix.METHODS, section.kind, method)}
    parts |= {"drawing": [source_digest(f"tasks.mix.{name}") for name in ("lists", "budgets", "allotting")]}
    parts |= {"needs": seen.parents((*needs, *((group,) if named else ()))), "inputs": input_parts(seen, needs)}
    step = Step(config.store, "mix", section.kind, fingerprint({"stage": "mix", **parts}))
    return Planned(step, seen, section, method, "mix")


def sample_step(config: Curate, view: View, mixed: Step) -> Planned:
    """The sample step; weights that a file holds are read here, once."""
    section = targets.resolved(config.sample)
    method = load(sample.METHODS, section, seed=config.seed)
    view = with_columns(view, getattr(method, "input_columns", ()))
    view.require(method.needs, f"sample: {section.kind}", getattr(method, "remedy", ""))
    parts = {"mix": mixed.fingerprint, "seed": config.seed, "config": section.output_fields()}
    parts |= {"needs": view.parents(method.needs), "inputs": input_parts(view, method.needs)}
    parts |= {"planning": source_digest("tasks.sample.plans")}
    parts |= facts_of(sample.METHODS, section.kind, method)
    step = Step(config.store, "sample", section.kind, fingerprint({"stage": "sample", **parts}))
    return Planned(step, view, section, method, "sample")


def version_of(writing: Step) -> str:
    """The version of the mix that the emit step writes."""
    return writing.fingerprint[:12]


def emit_step(config: Curate, view: View, sampled: Step, entries: list[Shard], ingested: Step) -> Step:
    """The emit step; the head of its fingerprint is the version of the mix."""
    parts = {
        "stage": "emit",
        "name": config.name,
        "plan": sampled.fingerprint,
        "entries": shards.set_digest(entries),
        "emit": config.emit.model_dump(mode="json", exclude={"out"}),
        "input": [one.model_dump(mode="json", exclude={"path"}) for one in config.inputs],
        "ingest": ingested.fingerprint,
        "sidecars": sorted({step.fingerprint for step in view.sidecars.values()}),
        "source": [source_digest(f"tasks.emit.{name}") for name in ("rows", "layout", "accounts", "card")],
        "versions": versions(FOUNDATIONS),
    }
    return Step(config.store, "emit", "parquet", fingerprint(parts))
