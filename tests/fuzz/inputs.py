"""Mutated input files of every kind, and mutated configurations: whole, quarantined by row or as a whole, or refused."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from archives import packed, samples, tar_bytes
from corpora import png, rows
from fuzz.mutations import mutated

from configs import loading
from configs.catalogue import all_reasons
from configs.errors import ConfigError
from configs.inputs import JsonlInput, WebdatasetInput
from storage import shards
from storage.broken import BrokenFile
from storage.shards import InputFile
from storage.steps import Step
from tasks import ingest, load
from tasks.emit.schema import Passing, conform, mix_schema
from tasks.ingest.conversion import convert, shards_of, unit_id
from tasks.ingest.identities import identify
from tasks.ingest.jsonl import JsonlReader  # noqa: F401  imported before the clock of the first case runs
from tasks.ingest.webdataset import WebdatasetReader  # noqa: F401

ROLES = {"image": "image", "text": "text", "key": "key"}


@cache
def _parquet() -> list[bytes]:
    """Parquet files of several encodings, codecs and forms of the image column."""
    plain = pa.table(rows(40, 1))
    struct = pa.array([{"bytes": png(i), "path": f"{i}.png"} for i in range(40)])
    nested = plain.set_column(0, "image", struct).append_column("tags", pa.array([["a", "b"]] * 40))
    nulls = plain.set_column(1, "text", pa.array([None, "  ", "ç"] * 13 + ["x"]))
    found = []
    for table, options in (
        (plain, {"compression": "snappy"}),
        (plain, {"compression": "zstd", "row_group_size": 11}),
        (nested, {"compression": "none", "use_dictionary": False}),
        (nested, {"compression": "gzip", "data_page_version": "2.0"}),
        (nulls, {"compression": "lz4", "write_page_checksum": True}),
        (plain.slice(0, 0), {}),
    ):
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        found.append(sink.getvalue())
    return found


@cache
def _tars() -> list[bytes]:
    one = [{"key": f"a/{i:03d}", "png": png(i), "txt": f"caption {i}", "json": {"n": i, "s": "x"}} for i in range(12)]
    other = [{"key": f"ü{i}" * 40, "txt": f"long name {i}", "jpg": b"no picture", "cls": str(i)} for i in range(12)]
    made = [tar_bytes(samples(one)), tar_bytes(samples(other)), tar_bytes(samples(one), kind=1), tar_bytes([])]
    return made + [packed(made[0], "a.tar.gz"), packed(made[1], "a.tar.zst")]


@cache
def _lines() -> list[bytes]:
    plain = b"".join(
        json.dumps({"text": f"line {i}", "key": i, "tags": ["a"], "deep": {"x": [i]}}).encode() + b"\n"
        for i in range(60)
    )
    odd = (
        '{"text": "ç\\ud83d\\ude00", "n": 1e400}\r\n\n{"text": null, "n": 12345678901234567890}\n{"text":"a"}'.encode()
    )
    return [plain, odd, packed(plain, "a.gz"), packed(plain, "a.zst"), b""]


@cache
def _configs() -> list[bytes]:
    return [path.read_bytes() for path in sorted(loading.PRESETS.glob("*.yaml"))]


def parquet(seed: int) -> str:
    """A Parquet file is damaged as a whole, or all of its rows have an identity and can be read again and written."""
    with _file(_parquet(), seed, "a.parquet") as entry:
        try:
            with_schema = load(ingest.METHODS, _Section("parquet", entry.url)).peek(entry)
            ingest.accepts(ROLES, ROLES, with_schema, entry.file)
            schema = mix_schema({entry.file: Passing(with_schema, set(), True)}, "image", [])
            found = identify(entry, ROLES)
        except BrokenFile as broken:
            assert 0 < len(str(broken)) < 700
            return "damaged"
        except ValueError as error:  # the mutated footer names other columns or types
            assert 0 < len(str(error)) < 3000
            return "refused"
        assert found.sidecar.num_rows == shards.footer(entry.url)[0]
        _known([failure.reason for failure in found.failures])
        inner = pa.schema([field for field in schema if field.name in found.schema.names])
        again = [conform(part, inner, "image") for part in shards.stream(entry, found.schema.names, "image")]
        assert sum(part.num_rows for part in again) == found.sidecar.num_rows
        return "read"


def tar(seed: int) -> str:
    """A tar becomes shards whose rows are usable or have a reason, or is damaged as a whole."""
    return _converted(seed, _tars(), "a.tar", WebdatasetInput)


def lines(seed: int) -> str:
    """The same of JSON lines."""
    return _converted(seed, _lines(), "a.jsonl", JsonlInput)


def config(seed: int) -> str:
    """A configuration is taken or refused with words; nothing else happens."""
    rng = np.random.default_rng([seed, 23])
    seeds = _configs()
    data = mutated(seeds[rng.integers(len(seeds))], rng, seeds)[:20_000]
    try:
        loading.validate(loading.parse(data.decode("utf-8", "replace"), "a configuration"))
    except ConfigError as error:
        assert str(error)
        return "refused"
    return "taken"


class _Section:
    def __init__(self, kind: str, path: str) -> None:
        self.kind, self.path = kind, path


def _converted(seed: int, seeds: list[bytes], name: str, model) -> str:
    with _file(seeds, seed, name) as entry:
        folder = Path(entry.url.removeprefix("file://")).parent
        step = Step(str(folder / "store"), "ingest", model.model_fields["kind"].default, "f")
        convert(step, load(ingest.METHODS, model(path=str(folder / name))), entry)
        facts = step.facts(unit_id(entry))
        if facts["broken"]:
            assert not facts["parts"] and 0 < len(facts["broken"]) < 1000
            return "damaged"
        made = shards_of(step, entry, facts)
        for shard, part in zip(made, facts["parts"], strict=True):
            schema = shards.footer(shard.url)[1]
            roles = {role: column for role, column in ROLES.items() if column in schema.names and role != "key"}
            found = identify(shard, roles)
            assert found.sidecar.num_rows == part["rows"] and part["failed"] <= len(found.failures)
            _known([failure.reason for failure in found.failures])
        return "read" if made else "empty"


class _file:
    """A mutated file in a folder of its own, as the listing would show it."""

    def __init__(self, seeds: list[bytes], seed: int, name: str) -> None:
        rng = np.random.default_rng([seed, 22])
        self._data, self._name = mutated(seeds[rng.integers(len(seeds))], rng, seeds), name

    def __enter__(self) -> InputFile:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / self._name
        path.write_bytes(self._data)
        return InputFile(self._name, f"file://{path}", len(self._data), "1")

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _known(reasons: list[str]) -> None:
    assert set(reasons) <= set(all_reasons()), set(reasons) - set(all_reasons())
