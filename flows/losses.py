"""A store or mix that is deleted under a running flow: noticed, said in one sentence, never taken for fewer rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from configs.curate import Curate
from configs.errors import StoreLost
from flows.run import Run
from flows.scanning import Scan
from flows.taking import CHANGED
from storage import files, together
from storage.shards import NOTES, note_of
from storage.steps import DONE, Step
from tasks.groups import ItemsFailed

Made = list[tuple[Step, Iterable[str]]]
"""Steps and the digests of those shards whose commit points a run has seen."""

STAGES = ("ingest", "embed", "annotate", "score", "select", "mix")
"""Whose steps have a file and a commit point for each shard."""
COMMIT = re.compile(r"[0-9a-f]{32}\.json")
SPOKEN_FOR = re.compile(r"([0-9a-f]{32})(-[0-9]{5})?\.")
"""Beginning of a file's name, where a shard or a unit has a commit point: `<shard>.`, `<unit>-00001.`."""


@contextmanager
def losses_told(config: Curate, made: Made) -> Iterator[None]:
    """Tell an error of the block as what caused it, if that is a loss of files.

    Raises:
        StoreLost: Something is gone that `made` names, or a file below store or mixes was not found.
    """
    try:
        with _caused(config, made):
            yield
    except StoreLost as lost:
        _withdraw(config.store, lost.gone)
        raise


@contextmanager
def _caused(config: Curate, made: Made) -> Iterator[None]:
    try:
        yield
    except StoreLost:
        raise
    except Exception as error:  # raised again below, as itself or as what caused it
        with suppress(OSError):  # a store that does not answer now: nothing is known of losses
            check_made(config.store, made)
        for setting, url in (("store", config.store), ("emit.out", config.emit.out)):
            if gone := _not_found(error, f"{files.absolute(url)}/"):
                raise _lost(setting, url, gone) from error
        raise


def check_made(store: str, made: Made) -> None:
    """Look for the commit points of `made`: one listing for each step.

    Raises:
        StoreLost: One is gone.
    """
    for step, digests in made:
        if gone := {*digests} - step.committed():
            raise _lost("store", store, step.file(f"{min(gone)}.json"))


def check_taken(run: Run, found: Scan) -> None:
    """See that what was learned of every file is still known: a file without it would be left out, or seem changed.

    Raises:
        StoreLost: What was remembered of a file is gone.
    """
    unknown = [entry for entry in found.entries if entry.file not in found.facts]
    lacking = [entry for entry in unknown if run.failed.get(entry.file, CHANGED) == CHANGED]
    known = set(files.names(files.join(run.config.store, *NOTES))) if lacking else set()
    for entry in lacking:
        if f"{note_of(entry)}.json" not in known:
            raise _lost("store", run.config.store, f"what was known of {entry.file}")


def check_written(config: Curate, url: str, listed: dict[str, dict[str, int]]) -> None:
    """See that the files of a new mix at `url` stand there in their sizes.

    Raises:
        StoreLost: One does not.
    """
    for name, facts in sorted(listed.items()):
        target = files.join(url, name)
        if not files.has_size(target, facts["bytes"]):
            raise _lost("emit.out", config.emit.out, target)


def _lost(setting: str, url: str, gone: str) -> StoreLost:
    lost = StoreLost(
        f"`{setting}` {url} has lost files that this run made or read before, {gone} among them: was it deleted or "
        "cleaned? Run again: what is lost is made again"
    )
    lost.gone = gone
    return lost


def _withdraw(store: str, gone: str) -> None:
    """Remove the commit points that speak for files which are gone: else a rerun would look for them for ever.

    A deletion may run between a file and its commit point, and people delete single files by hand.
    """
    folder, _, name = gone.rpartition("/")
    with suppress(OSError):  # a store that is read-only now, or does not answer: the rerun says what is wrong then
        of_shard = SPOKEN_FOR.match(name)
        _remove(folder, [f"{of_shard[1] if of_shard else name.split('.')[0]}.json"])
        for step in _steps(store):
            with suppress(FileNotFoundError):  # it is being deleted at this moment
                _remove(step, _widowed(step))
            for exchange in files.names(files.join(step, "spill")):
                _remove(files.join(step, "spill", exchange), _unspilled(files.join(step, "spill", exchange)))


def _steps(store: str) -> Iterator[str]:
    """Folders of the steps in the store."""
    for stage in STAGES:
        for kind in files.names(files.join(store, stage)):
            if not kind.startswith("_"):
                yield from (files.join(store, stage, kind, one) for one in files.names(files.join(store, stage, kind)))


def _widowed(step: str) -> list[str]:
    """Commit points of shards or units in a step's folder, of whose files one is gone."""
    found = set(files.names(step))
    said = together.read(step, sorted(name for name in found if COMMIT.fullmatch(name)), renew=False)
    return [name for name, facts in said.items() if not found.issuperset(_files_of(name[:32], facts))]


def _files_of(name: str, facts: dict[str, Any]) -> Iterator[str]:
    """Files that the commit point of a shard, or of a converted unit, speaks for."""
    for part, failed in [(one["name"], one["failed"]) for one in facts.get("parts", [])]:
        yield from (f"{part}.parquet", *([f"{part}.failures.parquet"] if failed else []))
    if "parts" not in facts:
        yield from (f"{name}.parquet", *([f"{name}.failures.parquet"] if facts.get("failures") else []))


def _unspilled(folder: str) -> list[str]:
    """Indexes in the folder of an exchange whose file is gone."""
    found = set(files.names(folder))
    return [name for name in found if name.endswith(".json") and f"{name.removesuffix('.json')}.arrow" not in found]


def _remove(folder: str, commits: list[str]) -> None:
    for name in [together.TOGETHER, *commits, DONE] if commits else []:
        files.remove(files.join(folder, name))


def _not_found(error: BaseException | None, folder: str) -> str | None:
    """What an error, or what caused it, says of a file in `folder` that is not there."""
    while error is not None:
        if isinstance(error, ItemsFailed):
            told = [why for _, why in error.failed if why.startswith(("FileNotFoundError", "NoObject"))]
        else:
            told = [str(error)] if isinstance(error, FileNotFoundError) else []
        for why in told:
            if folder in why:
                return folder + why.split(folder, 1)[1].split("'")[0].split()[0]
        error = error.__cause__
    return None
