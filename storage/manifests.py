"""The manifest of a mix: `mix.json`, written last, and `latest.json`, which names the newest version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq
from blake3 import blake3

from configs.errors import MixError
from storage import files
from storage.ledger import tally
from storage.steps import Step

MANIFEST = "mix.json"
LATEST = "latest.json"


def resolve(url: str) -> str:
    """The folder of one version: `url` itself, or the version that `<url>/latest.json` names.

    Raises:
        MixError: Neither is a mix.
    """
    if files.exists(files.join(url, MANIFEST)):
        return url
    if (version := latest(url)) is not None:
        return files.join(url, version)
    raise MixError(f"{url} is not a mix: it has neither {MANIFEST} nor {LATEST}. Runs print where their mix is")


def read(url: str) -> dict[str, Any]:
    """The manifest of the mix at `url` (a version, or the folder with its `latest.json`)."""
    return dict(files.read_json(files.join(resolve(url), MANIFEST)))


def step_of(manifest: dict[str, Any], told: dict[str, Any]) -> Step:
    """The step in the store that a line of the manifest's `steps` tells of."""
    return Step(manifest["config"]["store"], told["stage"], told["kind"], told["fingerprint"])


def file_facts(url: str) -> dict[str, Any]:
    """Bytes and content digest of a file, streamed."""
    digest, size = blake3(), 0
    with files.reading(url) as file:
        while block := file.read_buffer(8 * files.MiB):
            digest.update(memoryview(block))
            size += len(block)
    return {"bytes": size, "digest": digest.hexdigest(length=16)}


def discrepancies(url: str, *, hashes: bool = True) -> Iterator[str]:
    """What does not fit: files against the manifest, the ledger against itself, rows against the ledger. Lazily.

    With `hashes` false only the presence and size of files are looked at: enough to return an existing mix as it is.
    """
    folder = resolve(url)
    manifest = read(folder)
    for name, facts in sorted(manifest["files"].items()):
        target = files.join(folder, name)
        if not files.exists(target):
            yield f"{name} is missing"
        elif files.size(target) != facts["bytes"]:
            yield f"{name} has {files.size(target)} bytes; the manifest says {facts['bytes']}"
        elif hashes and file_facts(target)["digest"] != facts["digest"]:
            yield f"{name} has another content than the manifest says (digest {facts['digest']})"
    if hashes:
        yield from _sums(folder, manifest)


def all_well(manifest: dict[str, Any]) -> str:
    """What to say of a mix without discrepancies: its sums, in one sentence."""
    facts = manifest["counts"]
    return (
        f"all well: {facts['rows_in']:,} rows in = {facts['kept']:,} kept + {facts['dropped']:,} dropped + "
        f"{facts['quarantined']:,} quarantined; {facts['emitted']:,} rows emitted; every digest fits"
    )


def _sums(folder: str, manifest: dict[str, Any]) -> Iterator[str]:
    counts, total = manifest["counts"], {"kept": 0, "dropped": 0, "quarantined": 0}
    used = emitted = 0
    for name in sorted(manifest["files"]):
        if name.startswith("ledger/"):
            columns = ["outcome", "stage", "reason", "row", "times_used"]
            told = tally(files.read_table(files.join(folder, name), columns))
            used += told.pop("used")
            for key, rows in told.items():
                total[key.split("|")[0]] += rows
        elif name.startswith("data/"):
            with files.reading(files.join(folder, name)) as file:
                emitted += pq.read_metadata(file).num_rows
    for outcome, rows in total.items():
        if rows != counts[outcome]:
            yield f"the ledger has {rows} {outcome} rows; the manifest says {counts[outcome]}"
    if sum(total.values()) != counts["rows_in"]:
        yield f"the ledger has {sum(total.values())} rows; {counts['rows_in']} came in"
    if not used == emitted == counts["emitted"]:
        yield f"the ledger counts {used} uses, the data has {emitted} rows, the manifest says {counts['emitted']}"


def publish(url: str, manifest: dict[str, Any]) -> None:
    """Write `mix.json`: from now on the mix exists."""
    files.write_json(files.join(url, MANIFEST), manifest)


def in_batch_order(parts: Iterable[str]) -> list[str]:
    """Names of a mix's parts in the order of its batches: those of six digits come after those of five."""
    return sorted(parts, key=lambda name: (len(name), name))


def latest(out: str) -> str | None:
    """The version that is the newest mix of its name, if there is one."""
    url = files.join(out, LATEST)
    return str(files.read_json(url)["version"]) if files.exists(url) else None


def point_latest(out: str, version: str) -> None:
    """Make `version` the newest mix of its name."""
    files.write_json(files.join(out, LATEST), {"version": version})
