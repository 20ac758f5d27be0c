import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.shards import Shard
from tasks.emit import rows
from tasks.emit.layout import blocks


def write(folder, count=100, group=10):
    table = pa.table({"image": [bytes([i]) * (i + 1) for i in range(count)], "n": list(range(count))})
    pq.write_table(table, folder / "a.parquet", row_group_size=group)
    return Shard(0, "a.parquet", str(folder / "a.parquet"), "d", count)


def plan_for(wanted):
    return pa.table({"row": np.sort(np.array(wanted, np.int64)), "position": np.arange(len(wanted))})


def test_every_needed_row_group_is_read_once_and_no_other(tmp_path, monkeypatch):
    shard, read = write(tmp_path), []
    original = pq.ParquetFile.iter_batches

    def spy(self, *args, row_groups=None, **kwargs):
        read.extend(row_groups)
        return original(self, *args, row_groups=row_groups, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    wanted = [3, 3, 9, 10, 55, 55, 55, 99]
    got = []
    for at, table, mine in rows.used_slices(shard, plan_for(wanted), ["image", "n", "absent"]):
        got += table["n"].take(pa.array(mine["row"].to_numpy() - at)).to_pylist()
    assert sorted(got) == wanted and sorted(read) == [0, 1, 5, 9]


def test_a_row_used_very_often_comes_in_bounded_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(rows.shards, "SLICE_BYTES", 32)
    shard = write(tmp_path)
    sizes = [mine.num_rows for _, _, mine in rows.used_slices(shard, plan_for([7] * 50 + [8]), ["n"])]
    assert sum(sizes) == 51 and max(sizes) <= 4


def test_blocks_hold_consecutive_files_of_about_a_million_rows():
    entries = [Shard(i, f"{i}", f"{i}", str(i), n) for i, n in enumerate([0, 600_000, 600_000, 2_000_000, 5, 5])]
    assert [[e.index for e in block] for block in blocks(entries)] == [[0, 1], [2], [3], [4, 5]]
    assert blocks([]) == []


def test_uids_as_hexadecimal_text():
    uids = pa.array([b"\x00\xff" * 8, bytes(range(16))], pa.binary(16))
    assert rows._hex(uids).to_pylist() == [u.as_py().hex() for u in uids]
    assert rows._hex(uids.slice(1)).to_pylist() == [bytes(range(16)).hex()]
