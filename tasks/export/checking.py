"""Whether an export holds the rows of its mix: all of them, in order, byte for byte."""

from __future__ import annotations

from itertools import zip_longest

from configs.errors import MixError
from configs.export import Export
from storage import files, manifests
from tasks import load
from tasks.export import METHODS, Exporter
from tasks.export.plan import survey
from tasks.export.rows import Sample, Source, samples

MANIFEST = "export.json"


def check(url: str, mix: str) -> int:
    """The number of rows of the export at `url`, each read by the format's own library and equal to the mix's.

    Raises:
        MixError: It is no export, or of another mix; a file is missing or has another digest; a row differs.
    """
    if not files.exists(files.join(url, MANIFEST)):
        raise MixError(f"{url} is no export, or not a whole one: it has no {MANIFEST}, which is written last")
    told, extent = files.read_json(files.join(url, MANIFEST)), survey(mix)
    version = manifests.read(mix)["version"]
    if (told["mix"]["version"], told["rows"]) != (version, extent.source.rows):
        raise MixError(
            f"{url} holds {told['rows']} rows of version {told['mix']['version']}; the mix is {version} with "
            f"{extent.source.rows} rows"
        )
    for name, facts in told["files"].items():
        target = files.join(url, name)
        if not files.exists(target) or manifests.file_facts(target) != {k: facts[k] for k in ("bytes", "digest")}:
            raise MixError(f"{target} is missing or has another content than {MANIFEST} says; remove the export")
    exporter = load(METHODS, Export(kind=told["format"]))
    begin = 0
    for number in range(told["shards"]):
        rows = told["files"].get(exporter.name(number), {"rows": 0})["rows"]
        check_shard(exporter, url, number, extent.source, (begin, begin + rows))
        begin += rows
    if begin != extent.source.rows:
        raise MixError(f"{url} has {begin} rows in its shards; the mix has {extent.source.rows}")
    return begin


def check_shard(exporter: Exporter, url: str, number: int, source: Source, rows: tuple[int, int]) -> None:
    """Raise MixError unless shard `number` holds these rows of the mix (first, after the last) in their order."""
    name, before = exporter.name(number), ""
    pairs = zip_longest(samples(source, *rows), exporter.read(url, number, *rows))
    for row, (meant, found) in enumerate(pairs, rows[0]):
        if meant is None or found is None:
            more = "more" if meant is None else "fewer"
            raise MixError(f"{url}/{name} has {more} than its {rows[1] - rows[0]} rows; remove it and export again")
        if _comparable(meant) != _comparable(found):
            raise MixError(f"{url}/{name} differs from row {row} of {source.url} (key {meant.key}); remove it")
        if meant.key <= before:
            raise MixError(f"{source.url} is not in batch order: {meant.key} comes after {before} (row {row})")
        before = meant.key


def _comparable(sample: Sample) -> Sample:
    """Some formats have no nulls: an empty picture or caption is as good as none."""
    return sample._replace(image=sample.image or None, text=sample.text or None)
