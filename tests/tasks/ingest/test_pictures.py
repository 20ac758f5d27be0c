"""Files that data name, and readers of all kinds, on an object store: credentials reach every thread."""

from __future__ import annotations

import buckets
import pytest
from archives import read_unit, samples, tar_bytes, write_files

from configs.inputs import ImageFolderInput, JsonlInput, WebdatasetInput
from storage import files, objects
from tasks.ingest import pictures
from tasks.ingest.image_folder import ImageFolderReader
from tasks.ingest.jsonl import JsonlReader
from tasks.ingest.pictures import Folder
from tasks.ingest.records import Unusable
from tasks.ingest.webdataset import WebdatasetReader


@pytest.fixture
def place(monkeypatch, request):
    """The URL of a bucket of S3, reached with credentials."""
    buckets.credentials(monkeypatch)
    with buckets.s3() as store:
        url = store.place(request.node.name.replace("_", "-")[:50])
        with objects.using(store.options):
            yield store, url


def test_readers_on_an_object_store(place):
    _, url = place
    files.write_bytes(f"{url}/tars/x.tar", tar_bytes(samples([{"key": "a", "jpg": b"j" * 5000, "txt": "t"}])))
    for i in range(40):
        files.write_bytes(f"{url}/in/p/{i:02d}.jpg", b"%d" % i)
        files.write_bytes(f"{url}/in/p/{i:02d}.txt", b"t%d" % i)
    lines = b"".join(b'{"image": "p/%02d.jpg"}\n' % i for i in range(41)) + b'{"image": "../tars/x.tar"}\n'
    files.write_bytes(f"{url}/in/x.jsonl", lines)
    wanted = [b"%d" % i for i in range(40)]
    made = WebdatasetReader(WebdatasetInput(kind="webdataset", path=f"{url}/tars"))
    table, failures = read_unit(made, *made.units())
    assert table["text"].to_pylist() == ["t"] and len(table["image"][0]["bytes"].as_py()) == 5000 and not failures
    made = JsonlReader(JsonlInput(kind="jsonl", path=f"{url}/in", image="image"))
    table, failures = read_unit(made, *made.units())
    assert [row["bytes"] for row in table["image"].to_pylist()[:40]] == wanted
    assert {row: f.reason for row, f in failures.items()} == {40: "image_not_found", 41: "path_escapes_folder"}
    made = ImageFolderReader(ImageFolderInput(kind="image_folder", path=f"{url}/in"))
    (unit,) = made.units()
    table, failures = read_unit(made, unit)
    assert [row["bytes"] for row in table["image"].to_pylist()] == wanted and not failures
    assert table["text"].to_pylist() == [f"t{i}" for i in range(40)] and table["source"].to_pylist() == ["p"] * 40
    assert (unit.file, unit.size) == ("p", sum(map(len, wanted)) * 2 + 40)


def test_a_store_that_refuses_is_no_failure_of_a_row(place):
    store, url = place
    files.write_bytes(f"{url}/a.jpg", b"a")
    folder = Folder(url)
    assert list(folder.fetch(["a.jpg", None])) == [b"a", None]
    store.fault = lambda environ: (403, "AccessDenied")
    with pytest.raises(OSError):
        list(folder.fetch(["a.jpg"]))


@pytest.mark.parametrize("local", [True, False])
def test_a_file_that_is_too_large_is_not_read(tmp_path, local, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 10)
    url = str(tmp_path) if local else "memory://toolarge"
    files.write_bytes(f"{url}/a.jpg", bytes(10))
    files.write_bytes(f"{url}/b.jpg", bytes(11))
    fine, large = Folder(url).fetch(["a.jpg", "b.jpg"])
    assert fine == bytes(10) and isinstance(large, Unusable)
    assert (large.reason, large.detail) == ("image_too_large", "'b.jpg' has 11 bytes; at most 10 are read")


def test_a_root_folder_has_no_outside(tmp_path):
    write_files(tmp_path, {"a.jpg": b"a"})
    assert list(Folder("/").fetch([f"{tmp_path}/a.jpg".lstrip("/")])) == [b"a"]
