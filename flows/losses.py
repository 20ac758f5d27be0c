"""A store or mix that is deleted under a running flow: noticed, said in one sentence, never taken for fewer rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from configs.curate import Curate
from configs.errors import StoreLost
from flows.run import Run
from flows.scanning import Scan
from flows.taking import CHANGED
from storage import files
from storage.shards import note_of
from storage.steps import DONE, Step
from tasks.groups import ItemsFailed

Made = list[tuple[Step, Iterable[str]]]
"""Steps and the digests of those shards whose commit points a run has seen."""

STAGES = ("ingest", "embed", "annotate", "score", "select", "mix")
"""Whose steps have a file and a commit point for each shard."""
DIGEST = re.compile(r"[0-9a-f]{32}\.json")


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
    known = set(files.names(files.join(run.config.store, "ingest", "_files")))
    for entry in found.entries:
        lacking = entry.file not in found.facts and run.failed.get(entry.file, CHANGED) == CHANGED
        if lacking and f"{note_of(entry)}.json" not in known:
            raise _lost("store", run.config.store, f"what was known of {entry.file}")


def check_written(config: Curate, url: str, listed: dict[str, dict[str, int]]) -> None:
    """See that the files of a new mix at `url` stand there in their sizes.

    Raises:
        StoreLost: One does not.
    """
    for name, facts in sorted(listed.items()):
        target = files.join(url, name)
        if not files.exists(target) or files.size(target) != facts["bytes"]:
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
        _remove(folder, [f"{name.split('.')[0]}.json", DONE])
        for step in _steps(store):
            _remove(step, [name for name in _widowed(step) if DIGEST.fullmatch(name)])
            for exchange in files.names(files.join(step, "spill")):
                _remove(files.join(step, "spill", exchange), list(_widowed(files.join(step, "spill", exchange))))


def _steps(store: str) -> Iterator[str]:
    """Folders of the steps in the store."""
    for stage in STAGES:
        for kind in files.names(files.join(store, stage)):
            if not kind.startswith("_"):
                yield from (files.join(store, stage, kind, one) for one in files.names(files.join(store, stage, kind)))


def _widowed(folder: str) -> Iterator[str]:
    """Commit points in `folder` without the files that they speak for."""
    found = set(files.names(folder))
    for name in (name for name in found if name.endswith(".json")):
        shard = name.removesuffix(".json")
        if not {f"{shard}.parquet", f"{shard}.arrow"} & found:
            yield name
        elif f"{shard}.parquet" in found and f"{shard}.failures.parquet" not in found:
            if files.read_json(files.join(folder, name)).get("failures"):
                yield name


def _remove(folder: str, commits: list[str]) -> None:
    for commit in [*commits, DONE] if commits else []:
        files.remove(files.join(folder, commit))


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
