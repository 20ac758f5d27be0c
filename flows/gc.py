"""Cleaning: versions of a mix that are kept neither by count nor by age, and what no kept mix needs in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State
from pydantic import Field

from configs.curate import Curate, Preset
from configs.errors import PlaceError, RunFailed
from flows.curate import resolve
from flows.forecast import in_bytes
from flows.reaching import reaching
from storage import files, garbage, leases, manifests, mixes
from storage.garbage import Piece, References
from storage.leases import CLEANING, Lease


@dataclass(frozen=True)
class Rules:
    """What is kept."""

    keep: int | None = None
    """Newest versions of the mix, those without rows counted apart; None: all, unless `keep_days` says otherwise."""
    keep_days: float | None = None
    """Versions younger than this; None: all, unless `keep` says otherwise."""
    grace_days: float = 7.0
    """Files of the store younger than this stay whatever needs them: half-done runs live from them."""
    dry_run: bool = False


@dataclass
class Cleaned:
    """What was removed, or would be."""

    store: str
    rules: Rules
    pieces: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Stage and kind -> files and bytes kept, files and bytes removed."""
    versions: list[str] = field(default_factory=list)
    """URLs of removed versions of the mix."""
    mixes: int = 0
    """Mixes that the store is kept for."""
    notes: list[str] = field(default_factory=list)

    def count(self, piece: Piece) -> None:
        """Add a folder."""
        line = self.pieces.setdefault((piece.stage, piece.kind), [0, 0, 0, 0])
        for at, more in enumerate((piece.kept_files, piece.kept_bytes, len(piece.names), piece.bytes)):
            line[at] += more

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Stage, kind, files and bytes kept, files and bytes removed; in words."""
        total = [sum(column) for column in zip(*self.pieces.values(), strict=True)] or [0] * 4
        lines = [*self.pieces.items(), (("all", ""), total)]
        return [(*which, f"{n[0]:,}", in_bytes(n[1]), f"{n[2]:,}", in_bytes(n[3])) for which, n in lines]

    @property
    def message(self) -> str:
        """One sentence."""
        count, size = (sum(line[at] for line in self.pieces.values()) for at in (2, 3))
        would = "would be removed" if self.rules.dry_run else "removed"
        gone = f" and {len(self.versions)} versions of the mix" if self.versions else ""
        return f"{self.store}: {count:,} files, {in_bytes(size)}{gone} {would}; {self.mixes} mixes stand on what stays"


@reaching
def clean(config: Curate, rules: Rules, log: Callable[[str], None]) -> Cleaned:
    """Remove old versions of the configuration's mix, and the store files that no kept mix needs.

    Raises:
        StoreInUse: A run uses the store, or a mix that may need it cannot be reached. Nothing was removed.
        PlaceError: No mix stands on the store.
    """
    with Lease(config.store, config.name, log, doing=CLEANING) as lease:
        done = Cleaned(config.store, rules)
        if rules.dry_run:
            there = [one for one in leases.holders(config.store) if one.seems_alive]
            done.notes += [f"the store is in use, now nothing could be removed: {one.told}" for one in there]
        elif files.exists(config.store):
            lease.take_alone()
        folder = files.join(config.emit.out, config.name)
        going = _superseded(folder, rules, done)
        needed, gone = _needed(config, folder, set(going), done)
        before = time.time() - rules.grace_days * files.DAY
        going += _unlinked([url for url in gone if not _is_young(url, before)], done)
        for url in going:
            log(f"{'would remove' if rules.dry_run else 'remove'} version {url}")
            done.versions.append(url)
            if not rules.dry_run:
                lease.check()
                files.remove(files.join(url, manifests.MANIFEST))  # from now on it is no mix
                mixes.forget(config.store, url)
                files.remove(url)
        for piece in garbage.find(config.store, needed, before):
            done.count(piece)
            if not rules.dry_run and (piece.names or piece.whole):
                garbage.remove(piece, lease.check)
        log(done.message)
        return done


def _superseded(folder: str, rules: Rules, done: Cleaned) -> list[str]:
    """Versions that are kept neither by count nor by age; never the one that `latest.json` names, nor links."""
    if rules.keep is None and rules.keep_days is None:
        return []
    latest = manifests.latest(folder)
    newest = files.absolute(files.join(folder, latest)) if latest else None
    found: dict[bool, list[tuple[bool, float, str]]] = {True: [], False: []}
    for url in mixes.versions(folder):
        manifest = mixes.manifest_at(mixes.Known(url))
        if manifest is not None:
            created = datetime.fromisoformat(manifest["created"]).timestamp()
            # Those without rows apart: nights without input would use up what is kept of the others.
            found[manifest["counts"]["emitted"] > 0].append((url == newest, created, url))
    since = time.time() - rules.keep_days * files.DAY if rules.keep_days is not None else float("inf")
    going = []
    for alike in found.values():
        alike.sort(reverse=True)
        kept = max(rules.keep or 0, 1 if alike and alike[0][0] else 0)
        going += [url for _, created, url in alike[kept:] if created < since]
    return _unlinked(going, done)


def _unlinked(going: list[str], done: Cleaned) -> list[str]:
    """Versions without those that are links, of which it is said that they stay."""
    linked = [url for url in going if mixes.is_link(mixes.Known(url))]
    done.notes += [f"version {url} stays: it is a link; remove what it leads to, then the link" for url in linked]
    return [url for url in going if url not in linked]


def _needed(config: Curate, folder: str, going: set[str], done: Cleaned) -> tuple[References, list[str]]:
    """What the mixes that stay stand on, and the folders of half-made or half-removed versions."""
    needed, gone = References(), []
    here = set(mixes.versions(folder))
    for mix, manifest in mixes.kept(config.store, folder, going):
        if manifest is not None:
            done.mixes += 1
            needed.add(manifest)
        elif mix.url in here:
            gone.append(mix.url)
        elif not done.rules.dry_run:
            mixes.forget(config.store, mix.url)
    if not done.mixes:
        raise PlaceError(
            f"no mix stands on {config.store}, so nothing tells what of it is needed and nothing was removed; if it is "
            "not needed at all, delete the folder"
        )
    if not needed.complete:
        done.notes.append(
            "a mix was made before manifests told which notes, conversions and vocabularies they need: these stay"
        )
    return needed, gone


def _is_young(url: str, before: float) -> bool:
    """Whether another run, with another store, may be writing this version."""
    return any(entry.modified >= before for _, entry in garbage.below(url))


def run_name() -> str:
    """Which store is cleaned: `gc-demo/store`."""
    try:
        given = flow_run.parameters
        return f"gc-{resolve(given.get('preset') or 'plain', overrides=given.get('overrides') or '').store}"
    except ValueError:  # the flow itself tells what is wrong
        return "gc"


@flow(name="gc", flow_run_name=run_name, validate_parameters=True)
def gc(
    preset: Preset = "plain",
    overrides: str = "",
    keep: Annotated[int, Field(ge=0)] = 0,
    keep_days: Annotated[float, Field(ge=0)] = 0,
    grace_days: Annotated[float, Field(ge=0)] = 7,
    dry_run: bool = False,
) -> State:
    """Remove what no kept mix needs: old versions of a mix, and files of its store. Never while a run uses the store.

    Args:
        preset: Where the configuration starts.
        overrides: Its other settings, as YAML; `store`, `emit.out` and `name` say what is cleaned.
        keep: Newest versions of the mix that are kept, those without rows counted apart; 0: all, unless `keep_days`
            is given.
        keep_days: Versions younger than this many days are kept too; 0: the count alone decides.
        grace_days: Files of the store younger than this many days stay, whatever needs them.
        dry_run: Say what would be removed, and remove nothing.
    """
    logger = get_run_logger()
    rules = Rules(keep or None, keep_days or None, grace_days, dry_run)
    try:
        done = clean(resolve(preset, overrides=overrides), rules, logger.info)
    except (RunFailed, ValueError, OSError) as error:
        return Failed(message=str(error))
    for note in done.notes:
        logger.info(note)
    return Completed(message=done.message, data=done.store)
