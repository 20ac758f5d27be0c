"""Several inputs with different columns: one run, one schema, every row with its own words."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from archives import samples, save_dataset, write_files, write_jsonl, write_tar
from corpora import config, digests, png, run

from configs.errors import RunFailed
from configs.loading import ConfigError
from flows.pipeline import curate
from flows.runners import PlainRunner
from storage import manifests

SELECT = [{"kind": "exact_duplicates"}]
PLAIN = {
    "embed": None,
    "annotate": None,
    "score": [],
    "select": SELECT,
    "sample": {"kind": "iid", "batch_size": 4, "filter_ratio": 0.0},
}


def write(folder: Path, name: str, **columns) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


@pytest.fixture
def two(tmp_path):
    """Two inputs: `web` has (jpg, alt, id, from), `books` (image, caption, and a column called alt)."""
    write(
        tmp_path / "web",
        "a.parquet",
        jpg=[png(i) for i in range(12)],
        alt=[f"web {i}" for i in range(12)],
        id=[f"w{i}" for i in range(12)],
        quality=[i / 10 for i in range(12)],
    )
    pictures = [{"bytes": png(100 + i), "path": f"{i}.png"} for i in range(12)]
    write(
        tmp_path / "books",
        "a.parquet",
        image=pictures,
        caption=[f"book {i}" for i in range(12)],
        pages=list(range(12)),
        secret=["s"] * 12,
    )
    web = {"name": "web", "path": f"{tmp_path}/web", "image": "jpg", "text": "alt", "key": "id"}
    books = {"name": "books", "path": f"{tmp_path}/books", "text": "caption", "exclude": ["secret"]}
    return tmp_path, web, books


def mixed(tmp_path, inputs, **over):
    return config(tmp_path, PLAIN | {"input": inputs} | over)


def emitted(mix) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(Path(mix.url, "data").glob("*.parquet")))


def test_inputs_with_different_columns_come_out_under_the_names_of_the_first(two):
    folder, web, books = two
    mix = run(mixed(folder, [web, books]))
    table = emitted(mix)
    assert table.num_rows == 24 and list(manifests.discrepancies(mix.url)) == []
    assert {"jpg", "alt", "id", "source", "quality", "pages"} <= set(table.column_names)
    assert not {"image", "caption", "secret"} & set(table.column_names)
    for row in table.to_pylist():
        kind, number = row["alt"].split()
        name = {"web": "web", "book": "books"}[kind]
        assert row["source"] == name and row["mix_file"] == f"{name}/a.parquet" and row["mix_row"] == int(number)
        assert row["jpg"]["bytes"] == png(int(number) + (100 if name == "books" else 0))
        assert row["id"] == (f"w{number}" if name == "web" else None)
        assert (row["pages"], row["quality"]) == ((int(number), None) if name == "books" else (None, int(number) / 10))
    assert dict(
        zip(*table.select(["source"]).group_by("source").aggregate([([], "count_all")]).to_pydict().values())
    ) == {
        "web": 12,
        "books": 12,
    }


def test_inputs_are_groups_that_proportions_name(two):
    folder, web, books = two
    shares = {"proportions": {"web": 0.75, "books": 0.25}, "budget": 16}
    sources = emitted(run(mixed(folder, [web, books], mix=shares)))["source"].to_pylist()
    assert sources.count("web") == 12 and sources.count("books") == 4


def test_another_column_for_a_role_is_another_shard_and_nothing_stale_is_used(two):
    folder, web, books = two
    write(
        folder / "books",
        "a.parquet",
        image=[png(i) for i in range(100, 112)],
        caption=["same"] * 12,
        alt=[f"x{i}" for i in range(12)],
    )
    first = run(mixed(folder, [web, books | {"exclude": ["alt"]}]))
    assert "same" in emitted(first)["alt"].to_pylist()
    second = run(mixed(folder, [web, books | {"text": "alt"}]))
    assert {f"x{i}" for i in range(12)} < set(emitted(second)["alt"].to_pylist())


def test_a_column_in_the_way_is_named(two):
    folder, web, books = two
    write(folder / "books", "a.parquet", image=[png(1)], caption=["c"], alt=["in the way"])
    with pytest.raises(ValueError, match=r"books/a.parquet has 2 columns named 'alt', .*`input.exclude: \[alt\]`"):
        run(mixed(folder, [web, books]))


def test_a_missing_column_is_named_as_the_input_names_it(two):
    folder, web, books = two
    with pytest.raises(
        ValueError, match=r"`input.text` is 'title', but books/a.parquet has no such column; its columns"
    ):
        run(mixed(folder, [web, books | {"text": "title"}]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "each needs a `name` of its own"),
        ({"name": "web"}, "of its own"),
        ({"text": None}, "some have none"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(two, change, said):
    folder, web, books = two
    with pytest.raises(ConfigError, match=said):
        mixed(folder, [web, books | change])


def test_faults_in_one_of_several_inputs_are_told_by_their_place(two):
    folder, web, books = two
    with pytest.raises(ConfigError, match=r"`input.1.colour` is no setting"):
        mixed(folder, [web, books | {"colour": 1}])
    with pytest.raises(ConfigError, match="`kind` must be parquet, webdataset"):
        mixed(folder, [web, books | {"kind": "cassette"}])


def test_a_file_that_two_inputs_have_is_taken_once(two):
    folder, web, _ = two
    again = web | {"name": "again"}
    mix = run(mixed(folder, [web, again]))
    table = pa.concat_tables(pq.read_table(f) for f in Path(mix.url, "ledger").glob("*.parquet"))
    twice = table.filter(pc.equal(table["reason"], "duplicate_file"))
    assert twice.num_rows == 12 and len(set(twice["keeper_file"].to_pylist())) == 1


# ------------------------------------------------------------------------------------------------- inputs to be converted
def converted(tmp_path, **section):
    shapes = {"embed": {"kind": "open_clip", "model": "ViT-S-32-alt", "image_size": 32, "context_length": 16}}
    return config(tmp_path, PLAIN | shapes | {"input": section, "store": f"{tmp_path}/store"})


def pairs(count: int) -> list[dict[str, bytes | str]]:
    return [
        {"key": f"k{i}", "png": png(i), "txt": f"caption {i}", "json": {"url": f"u{i}", "width": i}}
        for i in range(count)
    ]


def told(mix) -> dict[str, list[dict]]:
    found = {}
    for name in ("ledger", "quarantine"):
        parts = [pq.read_table(f) for f in sorted(Path(mix.url, name).glob("*.parquet"))]
        found[name] = pa.concat_tables(parts).to_pylist() if parts else []
    return found


def test_tars_come_in_whole_and_a_damaged_one_is_quarantined_as_a_whole(tmp_path):
    for number in range(3):
        rows = [{**row, "key": f"{number}-{row['key']}", "png": png(10 * number + i)} for i, row in enumerate(pairs(8))]
        write_tar(tmp_path / "tars" / f"{number:05d}.tar", samples(rows))
    cut = tmp_path / "tars" / "00001.tar"
    good = cut.read_bytes()
    cut.write_bytes(good[: len(good) // 2])
    settings = converted(tmp_path, kind="webdataset", path=f"{tmp_path}/tars")
    mix = run(settings)
    table = emitted(mix)
    assert table.num_rows == 16 and {"url", "width", "key", "text", "image"} <= set(table.column_names)
    for row in table.to_pylist():
        number, index = row["key"].split("-k")
        assert (
            row["mix_file"] == f"{number:0>5}.tar" and row["text"] == f"caption {index}" and row["url"] == f"u{index}"
        )
        assert row["image"]["bytes"] == png(10 * int(number) + int(index))
    (line,) = told(mix)["quarantine"]
    assert line["file"] == "00001.tar" and line["reason"] == "damaged_file" and "at byte" in line["detail"]
    assert "1 damaged files are quarantined as a whole, first 00001.tar: " in mix.message
    log: list[str] = []
    assert run(settings, log).url == mix.url and not any("convert" in line for line in log)
    cut.write_bytes(good)
    again = run(settings, log)
    assert "convert webdataset: 1 units to do" in log and again.emitted == 24


def test_json_lines_with_bad_ones_keep_the_good_ones(tmp_path):
    folder = tmp_path / "lines"
    write_files(folder, {f"pictures/{i}.png": png(i) for i in range(6)})
    good = [{"text": f"line {i}", "picture": f"pictures/{i}.png", "n": i} for i in range(6)]
    lines = [json.dumps(row).encode() for row in good]
    lines += [
        b"{broken",
        b'{"text": "\xff"}',
        b"[1]",
        json.dumps({"text": "x", "picture": "../../secret.png"}).encode(),
    ]
    write_files(folder, {"a.jsonl": b"\n".join(lines)})
    mix = run(converted(tmp_path, kind="jsonl", path=f"{folder}", image="picture"))
    assert mix.manifest["counts"]["rows_in"] == 10 and mix.manifest["counts"]["quarantined"] == 4
    reasons = {line["row"]: line["reason"] for line in told(mix)["quarantine"]}
    assert reasons == {6: "invalid_json", 7: "text_not_utf8", 8: "not_an_object", 9: "path_escapes_folder"}
    assert {row["n"] for row in emitted(mix).to_pylist()} <= set(range(6))


def test_folders_of_pictures_are_sources_and_a_new_picture_converts_only_its_folder(tmp_path):
    tree = {
        f"{name}/{i}.{kind}": data
        for name in ("cats", "dogs")
        for i in range(4)
        for kind, data in (("png", png(len(name) * i)), ("txt", f"{name} {i}"))
    }
    write_files(tmp_path / "tree", {k: v + k.encode() if isinstance(v, bytes) else v for k, v in tree.items()})
    settings = converted(tmp_path, kind="image_folder", path=f"{tmp_path}/tree")
    rows = emitted(run(settings)).to_pylist()
    assert sorted(row["text"] for row in rows) == sorted(f"{row['source']} {row['key'][5]}" for row in rows)
    write_files(tmp_path / "tree", {"dogs/9.png": png(99), "dogs/9.txt": "dogs 9"})
    log: list[str] = []
    assert run(settings, log).manifest["counts"]["rows_in"] == 9 and "convert image_folder: 1 units to do" in log


def test_a_saved_hugging_face_data_set_comes_in(tmp_path):
    save_dataset(
        tmp_path / "set", {"train": {"image": [png(i) for i in range(8)], "text": [f"t {i}" for i in range(8)]}}
    )
    mix = run(converted(tmp_path, kind="huggingface", path=f"{tmp_path}/set"))
    assert mix.emitted == 8 and {row["image"]["bytes"] for row in emitted(mix).to_pylist()} == {
        png(i) for i in range(8)
    }


def test_the_same_bytes_whatever_the_workers(tmp_path):
    for number in range(3):
        rows = [{**row, "png": png(10 * number + i)} for i, row in enumerate(pairs(8))]
        write_tar(tmp_path / "tars" / f"{number:05d}.tar", samples(rows))
    found = []
    for workers in (1, 4):
        settings = converted(tmp_path, kind="webdataset", path=f"{tmp_path}/tars")
        over = {
            "store": f"{tmp_path}/store-{workers}",
            "emit": settings.emit.model_copy(update={"out": f"{tmp_path}/out-{workers}"}),
        }
        over["runner"] = settings.runner.model_copy(update={"workers": workers})
        found.append(digests(Path(run(settings.model_copy(update=over)).url), "data", "ledger"))
    assert found[0] == found[1]


def test_a_wrong_field_is_refused_before_anything_is_converted(tmp_path):
    write_jsonl(tmp_path / "lines" / "a.jsonl", [{"caption": "a", "id": 1}])
    with pytest.raises(
        ValueError, match=r"`input.text` is 'text', but a.jsonl has no such column; its columns are .*caption"
    ):
        run(converted(tmp_path, kind="jsonl", path=f"{tmp_path}/lines"))
    assert not list((tmp_path / "store").rglob("*.parquet"))


def test_an_image_field_that_no_line_has_is_refused_before_anything_is_converted(tmp_path):
    write_jsonl(tmp_path / "lines" / "a.jsonl", [{"text": "a", "img": "a.png"}])
    with pytest.raises(ValueError, match=r"`input.image` is 'imgs', but a.jsonl has no such column; its columns are"):
        run(converted(tmp_path, kind="jsonl", path=f"{tmp_path}/lines", image="imgs"))


def test_tars_and_parquet_in_one_mix(tmp_path):
    write_tar(tmp_path / "tars" / "a.tar", samples(pairs(8)))
    write(tmp_path / "pq", "a.parquet", image=[png(100 + i) for i in range(8)], caption=[f"p {i}" for i in range(8)])
    tars = {"kind": "webdataset", "name": "tars", "path": f"{tmp_path}/tars"}
    table = {"name": "table", "path": f"{tmp_path}/pq", "text": "caption"}
    rows = emitted(run(mixed(tmp_path, [tars, table]))).to_pylist()
    assert len(rows) == 16 and {row["mix_file"] for row in rows} == {"tars/a.tar", "table/a.parquet"}
    assert {row["source"] for row in rows} == {"tars", "table"}


def test_a_column_of_a_wrong_type_in_a_later_file_is_told_and_not_taken_for_damage(tmp_path):
    for number in range(4):
        write_jsonl(tmp_path / "lines" / f"{number}.jsonl", [{"text": f"{number} {i}"} for i in range(4)])
    write_jsonl(tmp_path / "lines" / "9.jsonl", [{"text": ["two", "captions"]}] * 4)
    settings = mixed(tmp_path, {"kind": "jsonl", "path": f"{tmp_path}/lines"})
    with pytest.raises(ValueError, match=r"which is list<element: string> in 9.jsonl; it must be string"):
        run(settings)
    write_jsonl(tmp_path / "lines" / "9.jsonl", [{"text": f"mended {i}"} for i in range(4)])
    assert run(settings).manifest["counts"]["rows_in"] == 20


class Meddling(PlainRunner):
    """Does something behind the run's back after each conversion."""

    def __init__(self, meddle):
        super().__init__(1)
        self.meddle = meddle

    def run(self, task, calls, done):
        outcomes = super().run(task, calls, done)
        if task.name == "convert":
            self.meddle()
        return outcomes


def test_a_unit_that_changes_while_others_are_converted_is_converted_again(tmp_path):
    lines, changes = tmp_path / "lines", iter(range(5, 99))
    for name in "ab":
        write_jsonl(lines / f"{name}.jsonl", [{"text": f"{name} {i}"} for i in range(4)])
    settings = mixed(tmp_path, {"kind": "jsonl", "path": f"{lines}"})

    def change(most: int):
        if (rows := next(changes)) <= most:
            write_jsonl(lines / "b.jsonl", [{"text": f"B {i}"} for i in range(rows)])

    mix = curate(settings, Meddling(lambda: change(5)), [].append)
    assert mix.manifest["counts"]["rows_in"] == 9
    write_jsonl(lines / "b.jsonl", [{"text": "c"}])
    with pytest.raises(RunFailed, match=r"1 of 2 shards failed.*b.jsonl: it changed while it was read"):
        curate(settings, Meddling(lambda: change(99)), [].append)


def test_what_is_there_for_a_role_does_not_depend_on_what_was_converted_before(tmp_path):
    write_jsonl(tmp_path / "lines" / "a.jsonl", [{"a": 1, "site": "x", "text": f"t {i}"} for i in range(4)])
    lines = {"kind": "jsonl", "path": f"{tmp_path}/lines"}
    fresh = run(mixed(tmp_path / "fresh", lines | {"source": "site"}))
    run(mixed(tmp_path / "used", lines))
    assert run(mixed(tmp_path / "used", lines | {"source": "site"})).manifest["version"] == fresh.manifest["version"]


def test_keys_and_sources_that_are_not_utf8_stop_nothing(tmp_path):
    odd = pa.array([b"ok", b"\xff", b"x", b"\xff"], pa.binary()).view(pa.string())
    write(tmp_path / "in", "a.parquet", text=[f"t {i}" for i in range(4)], key=odd, source=odd)
    mix = run(mixed(tmp_path, {"path": f"{tmp_path}/in", "image": None, "key": "key", "source": "source"}))
    assert [row["key"] for row in told(mix)["ledger"]] == ["ok", "\\xff", "x", "\\xff"]
    assert mix.emitted == 4 and list(manifests.discrepancies(mix.url)) == []


def test_a_damaged_file_that_claims_any_number_of_rows_is_one_damaged_file(tmp_path):
    for number in range(2):
        write(tmp_path / "in", f"{number}.parquet", text=[f"{number} {i}" for i in range(4)])
    pq.write_table(pa.table({"text": ["same"] * 101}), tmp_path / "in" / "9.parquet", compression=None)
    data = (tmp_path / "in" / "9.parquet").read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    few, many = b"\x16\xca\x01", b"\x16" + bytes([0x80] * 7 + [0x04])  # 101 and 2**50 as Thrift's zigzag varints
    footer = data[-8 - length : -8].replace(few, many)
    data = data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    (tmp_path / "in" / "9.parquet").write_bytes(data)
    assert pq.read_metadata(tmp_path / "in" / "9.parquet").num_rows > 1 << 48
    mix = run(mixed(tmp_path, {"path": f"{tmp_path}/in", "image": None, "key": None, "source": None}))
    assert mix.manifest["counts"]["rows_in"] == 8 and [d["file"] for d in mix.manifest["damaged"]] == ["9.parquet"]


def test_another_name_of_an_input_is_another_concept_where_names_are_concepts(tmp_path):
    write(tmp_path / "in", "a.parquet", text=[f"t {i}" for i in range(4)])
    for name in ("web", "books"):
        section = {"path": f"{tmp_path}/in", "name": name, "image": None, "key": None, "source": None}
        concepts = {"annotate": {"kind": "column", "column": "source"}, "sample": PLAIN["sample"]}
        mix = run(mixed(tmp_path, section, **concepts))
        assert json.loads(Path(mix.url, "report", "report.json").read_text())["concepts"]["names"] == [name]
