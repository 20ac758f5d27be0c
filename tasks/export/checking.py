"""Whether an export holds the rows of its mix: all of them, in order, byte for byte."""

from __future__ import annotations

from itertools import zip_longest

from configs.errors import MixError
from tasks.export import Exporter
from tasks.export.rows import Sample, Source, samples

MANIFEST = "export.json"
"""Written last: what has it is whole."""


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
