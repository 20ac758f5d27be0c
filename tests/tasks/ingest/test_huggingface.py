"""Data sets come out row for row with plain types; neither their JSON nor their README leads to files outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from archives import read_all, save_dataset, write_files
from corpora import png

from configs.errors import InputError
from configs.inputs import HuggingFaceInput
from storage.broken import BrokenFile
from tasks.ingest import built_datasets, huggingface, records, saved_datasets
from tasks.ingest.huggingface import HuggingFaceReader

datasets = pytest.importorskip("datasets")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test shares what `datasets` keeps, or finds a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", tmp_path / "cache" / "extracted")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    datasets.disable_progress_bars()


def reader(path, **config):
    return HuggingFaceReader(HuggingFaceInput(kind="huggingface", path=str(path), **config))


def rows(path, **config):
    table, failures = read_all(reader(path, **config))
    assert not failures
    return table.to_pylist()


def test_a_saved_data_set_comes_back_with_plain_types(tmp_path):
    write_files(tmp_path, {"a.png": png(1)})
    features = datasets.Features(
        image=datasets.Image(), text=datasets.Value("string"), label=datasets.ClassLabel(names=["cat", "dög"]),
        grid=datasets.Array2D((2, 2), "float32"), deep={"grid": datasets.Array2D((1, 1), "int8")},
        more=datasets.List(datasets.Image()), when=datasets.Value("timestamp[s]"), long=datasets.Value("large_string"),
    )  # fmt: skip
    values = {
        "image": [str(tmp_path / "a.png"), {"bytes": b"junk", "path": "../../x.jpg"}, None],
        "text": ["a", "ü猫\0", None], "label": [0, 1, None], "grid": [[[1, 2], [3, 4]]] * 3,
        "deep": [{"grid": [[5]]}] * 3, "more": [[str(tmp_path / "a.png")], [], None], "when": [0, 1, None],
        "long": ["l"] * 3,
    }  # fmt: skip
    save_dataset(tmp_path / "saved", {"train": values, "test": {k: v[1:] for k, v in values.items()}}, features)
    made = reader(tmp_path / "saved")
    (unit,) = made.units()
    table, failures = read_all(made)
    assert unit.file == "train" and not failures and table.schema == made.peek(unit)
    assert not table.schema.metadata
    assert dict(zip(table.column_names, table.schema.types)) == {
        "image": IMAGE, "text": pa.string(), "label": pa.int64(), "label_name": pa.string(),
        "grid": pa.list_(pa.list_(pa.float32())), "deep": pa.struct([("grid", pa.list_(pa.list_(pa.int8())))]),
        "more": pa.list_(IMAGE), "when": pa.timestamp("s"), "long": pa.large_string(),
    }  # fmt: skip
    found = table.to_pylist()
    assert [row["image"] for row in found] == [
        {"bytes": png(1), "path": "a.png"}, {"bytes": b"junk", "path": "x.jpg"}, None,
    ]  # fmt: skip
    assert [(row["text"], row["label"], row["label_name"]) for row in found] == [
        ("a", 0, "cat"), ("ü猫\0", 1, "dög"), (None, None, None),
    ]  # fmt: skip
    assert found[0]["grid"] == [[1, 2], [3, 4]] and found[2]["deep"] == {"grid": [[5]]}
    assert [row["text"] for row in rows(tmp_path / "saved", split="test")] == ["ü猫\0", None]


def test_slices_and_sums_of_saved_splits(tmp_path):
    save_dataset(tmp_path / "s", {"train": {"text": [f"a{i}" for i in range(10)]}, "test": {"text": ["b0", "b1"]}})

    def texts(split):
        return " ".join(row["text"] for row in rows(tmp_path / "s", split=split))

    assert (
        texts("train[:20%]") == "a0 a1" and texts("train[-2:]") == "a8 a9" and texts("train[3:5]+test") == "a3 a4 b0 b1"
    )
    assert texts("test+train[:1]") == "b0 b1 a0"
    for split, said in (
        ("nope", "'nope'; the data set in .* has 'train', 'test'"),
        ("train[x]", "Unrecognized instruction format"),
        ("train[:200%]", "slice boundaries"),
    ):
        with pytest.raises(InputError, match=said):
            texts(split)


def test_a_single_data_set_knows_its_split(tmp_path):
    save_dataset(tmp_path / "s", {"": {"text": ["a"]}})
    assert rows(tmp_path / "s", split="any") == [{"text": "a"}]
    state = json.loads((tmp_path / "s" / "state.json").read_text())
    (tmp_path / "s" / "state.json").write_text(json.dumps(state | {"_split": "test"}))
    assert rows(tmp_path / "s", split="test") == [{"text": "a"}]
    with pytest.raises(InputError, match="is its split 'test'"):
        rows(tmp_path / "s")


def test_slices_of_rows_and_bytes_change_nothing(tmp_path, monkeypatch):
    values = {"image": [{"bytes": bytes([i]) * 50, "path": None} for i in range(40)], "n": list(range(40))}
    save_dataset(tmp_path / "s", {"": values}, datasets.Features(image=datasets.Image(), n=datasets.Value("int32")))
    whole = rows(tmp_path / "s")
    assert [row["n"] for row in whole] == list(range(40)) and whole[7]["image"] == {"bytes": b"\7" * 50, "path": None}
    for rows_, bytes_ in ((3, 1 << 20), (1000, 300), (1000, 10)):
        monkeypatch.setattr(huggingface, "SLICE_ROWS", rows_)
        monkeypatch.setattr(huggingface, "SLICE_BYTES", bytes_)
        monkeypatch.setattr(saved_datasets, "PIECE", bytes_)
        monkeypatch.setattr(saved_datasets, "SLICE_ROWS", rows_)
        monkeypatch.setattr(records, "SLICE_ROWS", rows_)
        made = reader(tmp_path / "s")
        found = list(made.read(made.units()[0], {}))
        assert len(found) > 5 and [row for one in found for row in one.table.to_pylist()] == whole


def write_saved(folder, table, name="data.arrow", **state):
    """A folder like that of `save_to_disk`, by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": None} | state))
    return folder


def test_pictures_that_are_only_named_are_read_from_the_own_folder_alone(tmp_path):
    write_files(tmp_path, {"secret.jpg": b"s", "d/own.jpg": b"o", "d/sub/own.jpg": b"u"})
    (tmp_path / "d" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    inside = [f"{tmp_path}/d/own.jpg", f"{tmp_path}/d/sub/../sub/own.jpg"]
    outside = [
        f"{tmp_path}/secret.jpg", f"{tmp_path}/d/../secret.jpg", f"{tmp_path}/d/link.jpg", "/etc/passwd", "own.jpg",
        "hf://datasets/other/set@main/x.jpg", "http://169.254.169.254/x", "zip://a.jpg::https://x/y.zip",
    ]  # fmt: skip
    missing = [f"{tmp_path}/d/no.jpg", f"{tmp_path}/d/sub"]
    images = [{"bytes": None, "path": path} for path in [*inside, *outside, *missing]]
    images += [{"bytes": b"", "path": "e.jpg"}, {"bytes": None, "path": None}, None]
    table = pa.table({"image": pa.array(images, IMAGE), "n": list(range(len(images)))})
    write_saved(tmp_path / "d", table)
    found, failures = read_all(reader(tmp_path / "d"))
    assert found["n"].to_pylist() == list(range(len(images)))
    assert {row: f.reason for row, f in failures.items()} == (
        dict.fromkeys(range(2, 10), "path_escapes_folder") | dict.fromkeys((10, 11), "image_not_found")
    )
    bytes_ = [row and row["bytes"] for row in found["image"].to_pylist()]
    assert bytes_ == [b"o", b"u", *[None] * 10, b"", None, None]
    assert all("/" not in (row["path"] or "") for row in found["image"].to_pylist() if row)
    whole, failures = read_all(reader(tmp_path / "d", image=None))
    assert not failures and whole["image"].to_pylist() == images


def test_failures_count_from_the_first_row_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface, "LOT", 3)
    monkeypatch.setattr(huggingface, "SLICE_ROWS", 4)
    paths = [None, "/x", None, None, "/x", None, None, None, "/x"]
    table = pa.table({"image": pa.array([{"bytes": None, "path": path} for path in paths], IMAGE)})
    _, failures = read_all(reader(write_saved(tmp_path / "d", table)))
    assert set(failures) == {1, 4, 8}


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/x.arrow", "a/b.arrow", "..", "http://x/y", None, 5])
def test_only_files_right_beside_the_state_are_read(tmp_path, name):
    write_saved(tmp_path / "d", pa.table({"text": ["a"]}), _data_files=[{"filename": name}])
    with pytest.raises(InputError, match="only files beside it are read"):
        reader(tmp_path / "d").units()


def test_splits_of_a_dictionary_are_names_and_no_paths(tmp_path):
    write_saved(tmp_path / "x", pa.table({"text": ["secret"]}))
    write_files(tmp_path / "d", {"dataset_dict.json": json.dumps({"splits": ["../x", "train"]})})
    with pytest.raises(InputError, match=r"'\.\./x'; the data set in"):
        reader(tmp_path / "d", split="../x").units()


@pytest.mark.parametrize("text", ["", "[", "[1]", '"x"', '{"_data_files": 5}', '{"_data_files": [5]}'])
def test_state_that_is_not_ours_is_one_sentence_or_no_rows(tmp_path, text):
    write_files(tmp_path / "d", {"state.json": text})
    try:
        assert rows(tmp_path / "d") == []
    except InputError as error:
        assert "state.json" in str(error)


def test_damaged_arrow_files_are_broken_with_a_place(tmp_path):
    table = pa.table({"text": [f"text {i}" for i in range(5000)], "n": list(range(5000))})
    folder = write_saved(tmp_path / "d", table)
    file = folder / "data.arrow"
    whole = file.read_bytes()
    rng = np.random.default_rng(3)
    broken = 0
    for turn in range(60):
        data = bytearray(whole)
        if turn % 3 == 0:
            del data[int(rng.integers(0, len(data))) :]
        for place in rng.integers(0, len(data) if turn % 2 else min(len(data), 900), 4 if data else 0):
            data[place] = rng.integers(0, 256)
        file.write_bytes(data)
        try:
            found, _ = read_all(reader(folder))
            assert found.num_rows <= 5000
        except BrokenFile as error:
            broken += 1
            assert error.at is None or 0 <= error.at <= len(data)
    assert broken > 20


def test_texts_that_are_not_utf8_fail_their_rows_alone(tmp_path):
    data = pa.array([b"ok", b"caf\xe9", None, b"\xff", b"fine"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 5, data.buffers())
    image = pa.array([{"bytes": None, "path": path} for path in (None, None, "/x", "/x", None)], IMAGE)
    folder = write_saved(tmp_path / "d", pa.table({"image": image, "other": text}))
    table, failures = read_all(reader(folder))
    assert table["other"].to_pylist() == ["ok", None, None, None, "fine"]
    assert {row: f.reason for row, f in failures.items()} == {
        1: "text_not_utf8", 2: "path_escapes_folder", 3: "text_not_utf8",
    }  # fmt: skip
    assert failures[1].detail == "`other` is not valid UTF-8"


def test_hostile_metadata_is_no_features(tmp_path):
    for text in (
        b"",
        b"[" * 10_000,
        b'{"info": 5}',
        b'{"info": {"features": [1]}}',
        b'{"info": {"features": {"n": 5}}}',
    ):
        table = pa.table({"n": [0, 1, 9]}).replace_schema_metadata({b"huggingface": text})
        assert [row["n"] for row in rows(write_saved(tmp_path / "d", table))] == [0, 1, 9]
    names = {"info": {"features": {"n": {"_type": "ClassLabel", "names": ["a", "\ud800"]}}}}
    table = pa.table({"n": [0, 1, 9, -1]}).replace_schema_metadata({b"huggingface": json.dumps(names)})
    assert [row["n_name"] for row in rows(write_saved(tmp_path / "d", table))] == ["a", "?", None, None]


def test_saved_folders_import_no_library(tmp_path):
    save_dataset(tmp_path / "s", {"train": {"text": ["a"]}})
    code = (
        "import sys; from configs.inputs import HuggingFaceInput as I; from tasks.ingest.huggingface import HuggingFaceReader as R\n"
        "r = R(I(kind='huggingface', path=sys.argv[1])); (u,) = r.units(); assert list(r.read(u, {}))[0].table.num_rows == 1\n"
        "assert 'datasets' not in sys.modules and 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], cwd=root, check=True)


# ------------------------------------------------------------------------------------------- folders of data files


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_data_files(tmp_path, streaming):
    write_files(
        tmp_path / "d",
        {"a.jsonl": '{"text": "a", "n": 1}\n{"text": "ü", "n": 2}\n', "b.jsonl": '{"text": null, "n": 3}\n'},
    )
    made = reader(tmp_path / "d", streaming=streaming)
    (unit,) = made.units()
    table, failures = read_all(made)
    assert not failures and made.peek(unit).names == ["text", "n"]
    assert [(row["text"], row["n"]) for row in table.to_pylist()] == [("a", 1), ("ü", 2), (None, 3)]
    write_files(tmp_path / "d", {"b.jsonl": '{"text": "changed", "n": 3}\n'})
    assert made.units()[0].stamp != unit.stamp


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_pictures_gives_their_bytes(tmp_path, streaming):
    write_files(tmp_path / "d", {f"{name}/{i}.png": png(i) for i, name in enumerate(["cat", "cat", "dog"])})
    found = rows(tmp_path / "d", streaming=streaming, text=None)
    assert [row["image"] for row in found] == [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)]


@pytest.mark.parametrize("place", ["{}/secret.json", "../secret.json", "file://{}/secret.json", "link.json"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_readme_that_names_files_outside_is_refused(tmp_path, place, streaming):
    write_files(tmp_path, {"secret.json": '{"text": "secret"}', "d/a.jsonl": '{"text": "a"}'})
    (tmp_path / "d" / "link.json").symlink_to(tmp_path / "secret.json")
    path = place.format(tmp_path)
    readme = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {path}\n---\n"
    write_files(tmp_path / "d", {"README.md": readme})
    with pytest.raises(InputError, match="outside of itself"):
        rows(tmp_path / "d", streaming=streaming)


def test_scripts_are_never_run(tmp_path):
    write_files(tmp_path / "d", {"d.py": f"open({str(tmp_path / 'ran')!r}, 'w')"})
    with pytest.raises(InputError):
        rows(tmp_path / "d")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("streaming", [False, True])
def test_data_files_that_are_damaged_are_broken(tmp_path, streaming):
    write_files(tmp_path / "d", {"a.parquet": b"PAR1" + bytes(100) + b"PAR1"})
    with pytest.raises(BrokenFile):
        rows(tmp_path / "d", streaming=streaming)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"split": "nope"}, "nope"),
        ({"subset": "nope"}, "nope"),
        ({"split": "train[:1]", "streaming": True}, "parts of splits need `input.streaming: false`"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path, config, said):
    write_files(tmp_path / "d", {"a.jsonl": '{"text": "a"}\n'})
    with pytest.raises(InputError, match=said) as caught:
        rows(tmp_path / "d", **config)
    assert "`input." in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(built_datasets, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mixwright\[huggingface\]"):
        reader("org/name").units()


def test_places_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data files"):
        rows(tmp_path / "empty")
    with pytest.raises(InputError, match="no name on the Hugging Face hub"):
        rows(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------------- the hub

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Stands for the hub: one data set, whose builder is one of a folder of ours."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.asked, self.built = folder, [], []
        self.real = datasets.load_dataset_builder
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", self.info)
        monkeypatch.setattr(datasets, "load_dataset_builder", self.build)
        self.data_files = None

    def info(self, name, revision, timeout):
        self.asked.append((name, revision))
        return SimpleNamespace(sha=SHA)

    def build(self, name, subset, **options):
        self.built.append((name, subset, options))
        builder = self.real(str(self.folder))
        builder.repo_id = name
        files = self.data_files or [
            f"hf://datasets/{name}@{options['revision']}/{Path(f).name}" for f in builder.config.data_files["train"]
        ]
        shown = SimpleNamespace(config=SimpleNamespace(data_files={"train": files}), repo_id=name)
        shown.download_and_prepare = builder.download_and_prepare
        shown.as_dataset, shown.as_streaming_dataset = builder.as_dataset, builder.as_streaming_dataset
        return shown


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return Hub(write_files(tmp_path / "remote", {"a.jsonl": '{"text": "a"}\n{"text": "b"}\n'}), monkeypatch)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_name_on_the_hub_is_read_at_the_commit_it_is_now(hub, streaming):
    made = reader("org/name", subset="sub", streaming=streaming)
    (unit,) = made.units()
    assert unit.file == "sub/train" and unit.url == f"hf://datasets/org/name@{SHA}"
    table, _ = read_all(made)
    assert table["text"].to_pylist() == ["a", "b"] and made.peek(unit).names == ["text"]
    assert set(hub.asked) == {("org/name", None)} and all(
        one == ("org/name", "sub", {"revision": SHA}) for one in hub.built
    )
    assert made.units() == [unit]


def test_stamps_tell_splits_subsets_and_commits_apart(hub):
    def stamp(**config):
        return reader("org/name", **config).units()[0].stamp

    found = [stamp(), stamp(split="test"), stamp(subset="x"), stamp(revision="b" * 40), stamp(streaming=True)]
    assert len(set(found)) == 5 and stamp() == found[0]


def test_a_commit_is_not_asked_for(hub):
    made = reader("org/name", revision="b" * 40)
    assert rows("org/name", revision="b" * 40) == [{"text": "a"}, {"text": "b"}] and made.units()
    assert not hub.asked and hub.built[0][2] == {"revision": "b" * 40}


@pytest.mark.parametrize(
    "name", ["/etc/passwd.json", "hf://datasets/other/private@main/x.json", f"hf://datasets/org/name@{SHA}/../../x.json", "https://x/y.json"]
)  # fmt: skip
def test_data_files_outside_of_the_data_set_are_refused(hub, name):
    hub.data_files = [name]
    with pytest.raises(InputError, match="outside of itself"):
        rows("org/name")


def test_a_hub_that_cannot_be_reached_is_one_sentence_with_a_way_out(hub, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("[Errno -2] Name or service not known")

    made = reader("org/name")
    (unit,) = made.units()
    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    for work in (lambda: made.peek(unit), lambda: list(made.read(unit, {}))):
        with pytest.raises(OSError, match="'org/name'.*cannot be reached.*save_to_disk") as caught:
            work()
        assert caught.value.errno is not None and "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(OSError, match=r"^`input.path` is 'org/name'.*cannot be reached"):
        made.units()


def test_a_network_that_breaks_while_rows_are_read_is_no_broken_file(hub, monkeypatch):
    made = reader("org/name", streaming=True)
    (unit,) = made.units()

    def batches():
        yield pa.table({"text": ["a"]})
        raise ConnectionError("reset")

    monkeypatch.setattr(
        built_datasets, "_builder", lambda *_: SimpleNamespace(as_streaming_dataset=lambda split: Streamed(batches()))
    )
    with pytest.raises(OSError, match="cannot be reached"):
        list(made.read(unit, {}))


class Streamed:
    """Stands for an IterableDataset of types not known."""

    features = None

    def __init__(self, batches):
        self.batches = batches

    def with_format(self, kind):
        assert kind == "arrow"
        return self

    def iter(self, batch_size):
        return self.batches


def test_a_name_that_the_hub_does_not_show_says_how_to_log_in(monkeypatch):
    from huggingface_hub import errors

    def missing(*args, **kwargs):
        raise errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", missing)
    with pytest.raises(InputError, match="'org/name'.*HF_TOKEN"):
        reader("org/name").units()
