"""The annotator's frozen state: a vocabulary read from a file or mined, class embeddings computed; made once.

Beside it lies, to be read by people, which name became which concept: `<same name>.tsv`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from configs.curate import Curate
from configs.errors import RunFailed
from flows.planning import annotate_section, facts_of, with_columns
from flows.run import HEAVY, Run
from storage import files, shards, states
from storage.fingerprints import fingerprint
from storage.shards import Shard
from storage.steps import Step
from storage.view import View
from tasks import annotate, load
from tasks.annotate import vocabularies
from tasks.annotate.entries import decode_vocabulary, mapping_text
from tasks.annotate.task import VOCABULARY, build_parts, fit_annotator, join_parts, part_name, summarise_shards
from tasks.groups import ItemsFailed


def frozen_url(config: Curate) -> str | None:
    """Where the annotator's frozen state is, or will be; None if the method has none."""
    section = annotate_section(config)
    method = load(annotate.METHODS, section)
    folder = files.join(config.store, "annotate", section.kind)
    if getattr(section, "vocabulary", None):
        content = {"vocabulary": vocabularies.identity(section.vocabulary)}
        content |= section.model_dump(include={"cleaning", "lowercase"})
        facts = facts_of(annotate.METHODS, section.kind, method)
        return files.join(folder, "_states", f"{fingerprint(content | facts)}.npz")
    if not getattr(method, "fitted", hasattr(method, "fit")):
        return None
    return files.join(folder, "_frozen", f"{section.name or config.name}.npz")


def frozen_state(run: Run, view: View, every: list[Shard]) -> str | None:
    """Have the annotator's frozen state ready: found in the store, else made of a vocabulary or mined now."""
    section = annotate_section(run.config)
    url = frozen_url(run.config)
    if url is None:
        return None
    if not getattr(section, "vocabulary", None):
        mine(run, section, view, every, url)
    elif not files.exists(url):
        make(run, section, view, every, url)
    tell_mapping(run, url)
    return url


def mapping_url(url: str) -> str:
    """Where the mapping of the names of the state at `url` is."""
    return url.removesuffix(".npz") + ".tsv"


def tell_mapping(run: Run, url: str) -> None:
    """Write the mapping of names to concepts beside the state at `url`, unless it is there, and say where it is."""
    if files.exists(mapping_url(url)):
        return
    state = states.load(url)
    if "vocabulary" in state:
        files.write_bytes(mapping_url(url), mapping_text(state).encode())
        concepts = len(decode_vocabulary(state["vocabulary"]))
        names = len(state.get("why", range(concepts)))
        run.log(f"annotate: {names:,} names are {concepts:,} concepts; which is which: {mapping_url(url)}")


def make(run: Run, section: Any, view: View, every: list[Shard], url: str) -> None:
    """Make the state of a given vocabulary; part by part where the method has parts, each kept as it is done."""
    state = load(annotate.METHODS, section).from_text(vocabularies.read_text(section.vocabulary))
    method = load(annotate.METHODS, section, state=state)
    if not hasattr(method, "build"):
        states.save(url, state)
        return
    run.stop_if_failed()
    method.check()
    step = Step(run.config.store, "annotate", section.kind, "_building-" + fingerprint({"url": url}))
    states.save(step.file(VOCABULARY), state)
    parts = list(range(method.parts()))
    todo = [part for part in parts if not files.exists(step.file(part_name(part)))]
    run.log(f"annotate: making the state of {section.vocabulary}: {len(todo)} of {len(parts)} parts to do")
    common = {"step": step, "config": section}
    try:
        run.each(build_parts, "parts", todo, HEAVY, schema=schema_seen(view, method.needs, every), **common)
        run.once(join_parts, parts=parts, target=url, **common)
    except (ItemsFailed, FileNotFoundError) as error:
        if not files.exists(url):  # else another run has made the same and dropped its parts
            raise RunFailed(f"making the state of {section.vocabulary} failed: {error}") from error


def schema_seen(view: View, needs: tuple[str, ...], every: list[Shard]) -> pa.Schema | None:
    """The types of those needed columns that sidecars have, by the first shard; None without shards."""
    if not every:
        return None
    made = [(name, view.sidecars[name].file(f"{every[0].digest}.parquet")) for name in needs if name in view.sidecars]
    return pa.schema([shards.footer(url)[1].field(name) for name, url in made])


def mine(run: Run, section: Any, view: View, every: list[Shard], url: str) -> None:
    """Mine the vocabulary of all shards, unless one of this name is frozen."""
    settings = section.model_dump(mode="json", exclude={"remine", "name", "vocabulary"})
    method = load(annotate.METHODS, section)
    settings |= {need: run.config.roles.get(need) for need in method.needs}
    view = with_columns(view, getattr(method, "input_columns", ()))
    about = url.removesuffix(".npz") + ".json"
    if files.exists(url) and not section.remine and not states.is_empty(states.load(url)):
        if files.exists(about) and files.read_json(about) != settings:
            run.warn(
                "vocabulary",
                f"the vocabulary {section.name or run.config.name!r} was mined with {files.read_json(about)}, which "
                f"is not what the configuration says now: set `annotate.remine`, or another `annotate.name`",
            )
        return
    run.stop_if_failed()
    run.log("annotate: mining the vocabulary")
    step = Step(run.config.store, "annotate", section.kind, "_mining-" + fingerprint({"url": url}))
    common = {"step": step, "config": section}
    files.remove(mapping_url(url))
    try:
        run.each(summarise_shards, "shards", every, HEAVY, view=view, **common)
        run.once(fit_annotator, shards=every, target=url, **common)
        files.write_json(about, settings)
    except (ItemsFailed, FileNotFoundError) as error:
        if not files.exists(url):  # else another run has mined the same and dropped its summaries
            raise RunFailed(f"mining the vocabulary failed: {error}") from error
    if states.is_empty(states.load(url)):
        lacking = " that is frequent enough (`annotate.min_count`)" if hasattr(section, "min_count") else ""
        run.warn("no-concepts", f"mining found no concept{lacking}: no row has concepts")
