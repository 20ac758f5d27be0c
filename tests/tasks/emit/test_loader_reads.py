"""What MixBatches reads and holds: row groups once or a bounded number of times; from object stores as from files."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_mixes import COLUMNS, build, draws, units
from workers import loader

from configs.errors import MixError
from storage import files, objects
from tasks.emit import loader as module
from tasks.emit import parts, reading
from tasks.emit.loader import MixBatches
from tasks.emit.order import Order


@pytest.fixture
def reads(monkeypatch):
    """How often each row group's rows were read."""
    counted: Counter = Counter()
    original = reading.Part.read

    def counting(self, group, columns):
        counted[self.url, group] += "text" in columns
        return original(self, group, columns)

    monkeypatch.setattr(reading.Part, "read", counting)
    return counted


@pytest.mark.parametrize("group_rows", [3, 20])
@pytest.mark.parametrize("window", [0, 5, 1000])
def test_a_window_reads_each_row_group_once_if_it_may_hold_them(tmp_path, reads, window, group_rows):
    build(tmp_path, 30, 2, part_rows=60, group_rows=group_rows)
    list(MixBatches(tmp_path, columns=COLUMNS, shuffle_window=window))
    parts = sorted((tmp_path / "data").iterdir())
    groups = {(str(part), i) for part in parts for i in range(pq.read_metadata(part).num_row_groups)}
    assert {place for place, count in reads.items() if count == 1} == groups == set(reads)


def test_what_is_held_is_bounded_and_the_batches_are_the_same(tmp_path, reads, monkeypatch):
    batches = units(build(tmp_path, 60, 1, part_rows=500, group_rows=20), 1)
    order = Order(60, 1, 30, 0)
    expected = [batches[unit] for stretch in order.stretches(range(60), 0) for unit in stretch]
    held, original = [], reading.Reader._hold

    def noting(self, group, again):
        original(self, group, again)
        held.append(sum(self._held.values()))
        assert all((group.rows is not None) == (group in self._held) for group in self._groups)

    monkeypatch.setattr(reading.Reader, "_hold", noting)
    most = {}
    for limit in (1 << 30, 2000, 1):
        monkeypatch.setattr(reading, "HOLD_BYTES", limit)
        reads.clear(), held.clear()
        assert draws(MixBatches(tmp_path, columns=COLUMNS, shuffle_window=30)) == expected
        most[limit] = (max(held), sum(reads.values()))
    groups = len(reads)
    assert most[1 << 30][1] == groups < most[2000][1] < most[1][1] <= 2 * 60
    assert most[2000][0] <= 2000 < most[1 << 30][0]


def parts_open(folder) -> int:
    """Files of the mix in `folder` that this process holds open."""
    found = 0
    for handle in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{handle}").startswith(f"{folder}/data/part-")
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts this process's open files")
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("most", [32, 2])
def test_a_window_over_many_parts_holds_few_files_open(tmp_path, monkeypatch, most, statistics):
    if most != 32:
        monkeypatch.setattr(parts, "OPEN_FILES", most)
    batches = units(build(tmp_path, 60, 1, part_rows=3, group_rows=2, statistics=statistics), 1)
    assert len(list((tmp_path / "data").iterdir())) > 60
    order = Order(60, 1, 60, 0)
    opened = []
    found = iter(MixBatches(tmp_path, columns=COLUMNS, shuffle_window=60))
    for unit in next(order.stretches(range(60), 0)):
        assert next(found)["mix_draw"].tolist() == batches[unit]
        opened.append(parts_open(tmp_path))
    assert 1 <= max(opened) <= most
    assert next(found, None) is None and parts_open(tmp_path) == 0


def test_arrow_tables_pass_as_they_are_and_travel_light(tmp_path, monkeypatch):
    table = build(tmp_path, 7, 2, group_rows=1000, part_rows=1000)
    batches = list(MixBatches(tmp_path, as_arrow=True))
    assert pa.concat_tables(batches).equals(table)
    assert [batch["mix_draw"].to_pylist() for batch in batches] == units(table, 2)
    assert [len(batch.column_names) for batch in MixBatches(tmp_path, columns=["text"], as_arrow=True)] == [1] * 14
    assert len(pickle.dumps(batches[0])) > table.nbytes / 2, "a slice takes its whole row group along, hence `compact`"
    small = module.compact(batches[0])
    assert small.equals(batches[0]) and len(pickle.dumps(small)) < table.nbytes / 2


@pytest.mark.parametrize("workers", [0, 2])
def test_object_stores(tmp_path, s3, planted, workers):
    expected = units(build(tmp_path, 7, 2), 2)
    place = s3.place(f"loader-{workers}")
    with objects.using(s3.options):
        for file in [*(tmp_path / "data").iterdir(), tmp_path / "mix.json"]:
            files.write_bytes(f"{place}/mixes/v1/{file.relative_to(tmp_path)}", file.read_bytes())
        files.write_bytes(f"{place}/mixes/latest.json", b'{"version": "v1"}')
    mix = MixBatches(f"{place}/mixes", columns=[*COLUMNS, "image"], storage_options=s3.options["s3"], shuffle_window=3)
    loaded = loader(mix, workers)
    order = Order(7, 2, 3, 0)
    wanted = [expected[unit] for stretch in order.stretches(range(14), 0) for unit in stretch]
    assert draws(loaded) == wanted

    with objects.using(s3.options):
        fs, path = files.filesystem(f"{place}/mixes/v1/data")
        fs.rm(path, recursive=True)
    with pytest.raises(MixError, match=r"part-00000.parquet is gone"):
        list(loaded)


def test_a_store_that_refuses_is_told_as_such(tmp_path, s3, planted):
    place = s3.place("loader-refused")
    with objects.using(s3.options):
        build(tmp_path, 7, 2)
        for file in [*(tmp_path / "data").iterdir(), tmp_path / "mix.json"]:
            files.write_bytes(f"{place}/{file.relative_to(tmp_path)}", file.read_bytes())
    mix = MixBatches(place, columns=COLUMNS, storage_options=s3.options["s3"])
    s3.fault = lambda environ: (403, "AccessDenied")  # after a HEAD moto's answer may reach the client garbled
    with pytest.raises(objects.ObjectError, match=r"cannot read s3://loader-refused/data/part-00000.parquet") as error:
        list(mix)
    assert "planted" not in str(error.value).lower()
