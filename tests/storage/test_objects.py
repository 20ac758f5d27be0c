"""Against real servers: S3 by moto, Google's by its emulator."""

from __future__ import annotations

import errno
import logging
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import buckets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.storage import require_packages
from storage import files, objects, shards
from storage.broken import BrokenFile, parquet_errors
from storage.objects import NoAccess, NoObject, ObjectError
from tasks.embed.stream import read_ahead

CHECKOUT = Path(__file__).parents[2]
BIG = 2 * files.UPLOAD_BYTES + files.UPLOAD_BYTES // 4
"""Bytes that go up in three parts."""


NUMBER = iter(range(1000))
pytestmark = pytest.mark.usefixtures("planted")


@pytest.fixture
def bucket(s3):
    """The URL of a fresh bucket, reached within the test."""
    with objects.using(s3.options):
        yield s3.place(f"bucket-{next(NUMBER)}")


@pytest.fixture(params=["s3", "gs"])
def either(request):
    """Likewise, once at each store."""
    store = request.getfixturevalue(request.param)
    with objects.using(store.options):
        yield store.place(f"bucket-{next(NUMBER)}")


def keys(url: str) -> list[str]:
    fs, path = files.filesystem(url)
    return fs.find(path)


# ---------------------------------------------------------------------------------------------------- reading, writing
@pytest.mark.parametrize("name", ["plain.bin", "a b+c%20d/ü #1.bin"])
def test_bytes_come_back_as_they_went(either, name):
    url = files.join(either, "folder", name)
    assert not files.exists(url)
    files.write_bytes(url, bytes(range(256)))
    assert files.read_bytes(url) == bytes(range(256)) and files.size(url) == 256
    files.write_bytes(url, b"")
    assert files.read_bytes(url) == b"" and files.size(url) == 0
    assert files.exists(url) and files.exists(files.join(either, "folder"))
    files.remove(files.join(either, "folder"))
    files.remove(files.join(either, "folder"))
    assert not files.exists(url) and files.names(files.join(either, "folder")) == []


def test_a_large_file_goes_up_in_parts_and_is_read_at_random(either, s3):
    block = bytes(range(256)) * 4096
    url = files.join(either, "big")
    with files.publishing(url) as file:
        for _ in range(BIG // len(block)):
            file.write(block)
        assert keys(either) == []  # nothing is seen before the end
    assert files.size(url) == BIG
    with files.reading(url) as one, files.reading(url) as two:
        one.seek(BIG - 5)
        assert one.read(100) == block[-5:] and two.read(3) == block[:3]
    if either.startswith("s3"):
        assert sum("partNumber" in request.get("QUERY_STRING", "") for request in s3.seen) == 3


@pytest.mark.parametrize("size", [0, 100, BIG])
def test_a_failed_write_leaves_nothing(either, size):
    url = files.join(either, "half")
    files.write_bytes(files.join(either, "other"), b"x")
    for interruption in (RuntimeError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(interruption), files.publishing(url) as file:
            for _ in range(0, size, files.MiB):
                file.write(bytes(files.MiB))
            raise interruption
    assert files.names(either) == ["other"]
    if either.startswith("s3"):
        fs, path = files.filesystem(either)
        assert fs.list_multipart_uploads(path) == []


def test_a_failed_write_leaves_the_older_file(either):
    url = files.join(either, "x")
    files.write_bytes(url, b"older")
    with pytest.raises(RuntimeError), files.publishing(url) as file:
        file.write(b"newer")
        raise RuntimeError
    assert files.read_bytes(url) == b"older"


def test_a_write_whose_upload_fails_leaves_nothing(bucket, s3):
    s3.fault = lambda request: (403, "AccessDenied") if "partNumber=2" in request["QUERY_STRING"] else None
    with pytest.raises(NoAccess, match="cannot write s3://.*/big: AccessDenied: as the test wants it"):
        files.write_bytes(files.join(bucket, "big"), bytes(BIG))
    s3.fault = None
    fs, path = files.filesystem(bucket)
    assert keys(bucket) == [] and fs.list_multipart_uploads(path) == []


def test_a_killed_writer_leaves_no_object(bucket, s3):
    program = (
        "import sys\nfrom storage import files, objects\n"
        f"with objects.using({s3.options!r}), files.publishing({bucket + '/half'!r}) as file:\n"
        f"    file.write(bytes({BIG}))\n    print('written', flush=True)\n    sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert any("partNumber" in request.get("QUERY_STRING", "") for request in s3.seen)
    assert keys(bucket) == [] and not files.exists(f"{bucket}/half")


def test_what_another_writer_does_is_seen_at_once(either):
    folder = files.join(either, "step")
    files.write_bytes(files.join(folder, "a.json"), b"1")
    assert files.names(folder) == ["a.json"] and not files.exists(files.join(folder, "b.json"))
    assert [entry.file for entry in shards.find(folder, (".json",))] == ["a.json"]
    fs, path = files.filesystem(folder)
    other = type(fs._target)(**fs._target.storage_options, skip_instance_cache=True)
    other.pipe_file(f"{path}/b.json", b"22")
    other.pipe_file(f"{path}/a.json", b"333")
    # In an order in which a listing from memory would answer each of them.
    assert files.size(files.join(folder, "a.json")) == 3 and files.exists(files.join(folder, "b.json"))
    assert [entry.size for entry in shards.find(folder, (".json",))] == [3, 2]
    assert files.read_bytes(files.join(folder, "b.json")) == b"22" and files.names(folder) == ["a.json", "b.json"]
    other.rm_file(f"{path}/b.json")
    assert not files.exists(files.join(folder, "b.json"))
    assert [entry.size for entry in shards.find(folder, (".json",))] == [3] and files.names(folder) == ["a.json"]


def test_an_object_that_marks_its_folder_is_no_name_in_it(bucket):
    fs, path = files.filesystem(bucket)
    fs.call_s3("put_object", Bucket=path, Key="folder/", Body=b"")
    files.write_bytes(f"{bucket}/folder/x", b"1")
    assert files.names(f"{bucket}/folder") == ["x"] and files.names(bucket) == ["folder"]


def test_a_file_that_is_replaced_while_it_is_read_is_an_error_and_no_mixture(bucket):
    url = f"{bucket}/x"
    files.write_bytes(url, bytes(4 * files.READ_AHEAD))
    with files.reading(url) as file:
        file.read(10)
        files.write_bytes(url, b"\x01" * (4 * files.READ_AHEAD))
        file.seek(3 * files.READ_AHEAD)
        with pytest.raises(ObjectError, match="cannot read s3://"):
            file.read(10)


def test_writing_is_tried_and_leaves_nothing(either, s3):
    files.try_writing(files.join(either, "new", "folder"))
    assert keys(either) == []
    with pytest.raises(NoObject, match="cannot write"):
        files.try_writing(either.replace("bucket", "nobucket"))


def test_writing_that_is_not_allowed_is_found_by_trying(bucket, s3):
    s3.fault = lambda request: (403, "AccessDenied") if request["REQUEST_METHOD"] == "PUT" else None
    with pytest.raises(NoAccess, match="AccessDenied"):
        files.try_writing(bucket)
    s3.fault = lambda request: (403, "AccessDenied") if request["REQUEST_METHOD"] == "DELETE" else None
    files.try_writing(bucket)  # such buckets keep all that was ever written
    s3.fault = None
    assert files.names(bucket) == [] and len(keys(bucket)) == 1


# --------------------------------------------------------------------------------------------------------------- errors
SECRETS = re.compile("|".join(re.escape(value) for value in buckets.CREDENTIALS.values()))


def test_errors_are_short_and_tell_the_store_s_own_word(bucket, s3):
    with pytest.raises(NoObject, match=rf"^cannot read {bucket}/none: there is no such object$"):
        files.read_bytes(f"{bucket}/none")
    with pytest.raises(NoObject, match="^cannot write s3://no-such-bucket/x: NoSuchBucket: "):
        files.write_bytes("s3://no-such-bucket/x", b"1")
    with pytest.raises(NoObject, match="^cannot list s3://no-such-bucket: NoSuchBucket: "):
        shards.find("s3://no-such-bucket")
    s3.fault = lambda request: (403, "InvalidAccessKeyId")
    for work in (
        lambda: files.names(bucket),
        lambda: shards.find(bucket),
        lambda: files.write_bytes(f"{bucket}/x", b""),
    ):
        with pytest.raises(
            NoAccess, match=r"^cannot (list|write) s3://\S+: InvalidAccessKeyId: as the test wants"
        ) as e:
            work()
        assert e.value.errno == errno.EACCES and e.value.__cause__ is None and e.value.__suppress_context__
    with pytest.raises(NoAccess, match=r"^cannot read \S+: 403: Forbidden$"):  # a HEAD has no body to say more
        files.exists(f"{bucket}/x")


@pytest.mark.parametrize(("fault", "served"), [((403, "AccessDenied"), 0), ((500, "InternalError"), 1)])
def test_a_store_that_fails_is_no_damaged_file(bucket, s3, fault, served):
    table = pa.table({"a": range(90_000), "b": [str(i) for i in range(90_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=30_000)
    files.write_bytes(f"{bucket}/x.parquet", sink.getvalue())
    with parquet_errors():
        assert files.read_table(f"{bucket}/x.parquet").equals(table)
    left = [None] * served  # with 1 the footer comes, the columns do not

    def fail(request):
        return (left.pop() if left else fault) if request["REQUEST_METHOD"] == "GET" else None

    s3.fault = fail
    with pytest.raises(ObjectError, match=f"^cannot read {bucket}/x.parquet: {fault[1]}") as failed, parquet_errors():
        files.read_table(f"{bucket}/x.parquet")
    assert failed.value.errno and not left
    s3.fault = None
    files.write_bytes(f"{bucket}/x.parquet", b"PAR1 no parquet PAR1")
    with pytest.raises(BrokenFile), parquet_errors():
        files.read_table(f"{bucket}/x.parquet")


@pytest.mark.parametrize("fault", [(503, "SlowDown"), (500, "InternalError")])
def test_a_store_that_stumbles_is_asked_again(bucket, s3, fault):
    stumbles = {method: 2 for method in ("GET", "PUT", "HEAD", "POST")}

    def stumble(request):
        stumbles[request["REQUEST_METHOD"]] -= 1
        return fault if stumbles[request["REQUEST_METHOD"]] >= 0 else None

    s3.fault = stumble
    files.write_bytes(f"{bucket}/x", b"data")
    assert files.read_bytes(f"{bucket}/x") == b"data" and files.names(bucket) == ["x"]
    files.remove(f"{bucket}/x")
    assert max(stumbles.values()) < 0


def test_credentials_are_cut_out_of_what_libraries_say(bucket):
    key, secret, token = buckets.CREDENTIALS.values()
    said = f"PUT https://host/x?X-Amz-Signature=abcd&y=1 Authorization: AWS4 Credential={key}/x, {secret}, x-t: {token}"
    with pytest.raises(ObjectError) as failed, objects.told("write", f"{bucket}/x"):
        raise OSError(said)
    assert str(failed.value) == (
        f"cannot write {bucket}/x: OSError: PUT https://host/x?X-Amz-Signature=***&y=1 Authorization: AWS4 "
        "Credential=***/x, ***, x-t: ***"
    )
    account = {"type": "service_account", "private_key": f"-----BEGIN-----\n{secret}\nEND", "private_key_id": token}
    with objects.using({"gs": {"token": account}}):
        assert not SECRETS.search(objects.redacted(f"{secret} {token}"))


def test_debug_lines_of_the_libraries_tell_no_credentials(bucket, caplog):
    with caplog.at_level(logging.DEBUG):  # of the root: what PREFECT_LOGGING_ROOT_LEVEL=DEBUG does
        files.write_bytes(f"{bucket}/x", b"data")
        files.read_bytes(f"{bucket}/x")
    assert not SECRETS.search("\n".join(record.getMessage() for record in caplog.records))


def test_credentials_are_sent_and_nothing_else(bucket, s3):
    files.write_bytes(f"{bucket}/x", b"data")
    sent = s3.seen[-1]
    assert buckets.CREDENTIALS["TEST_KEY"] in sent["HTTP_AUTHORIZATION"]
    assert sent["HTTP_X_AMZ_SECURITY_TOKEN"] == buckets.CREDENTIALS["TEST_TOKEN"]
    with objects.using({"s3": {"endpoint_url": s3.url, "anon": True}}):
        with pytest.raises(NoAccess):
            files.read_bytes(f"{bucket}/x")
    assert "HTTP_AUTHORIZATION" not in s3.seen[-1]
    with objects.using({}), pytest.raises(ObjectError, match="NoCredentialsError"):
        files.read_bytes(f"{bucket}/x")


# -------------------------------------------------------------------------------------------------------------- options
def test_runs_side_by_side_keep_their_own_options(s3, gs):
    with buckets.s3() as second:
        first_place, second_place = s3.place("shared-1"), second.place("shared-2")
        barrier = threading.Barrier(2)

        def work(store, place):
            with objects.using(store.options), objects.threads(3) as pool:
                for i in range(10):
                    barrier.wait()
                    files.write_bytes(f"{place}/{i}", str(i).encode())
                    assert list(pool.map(files.read_bytes, [f"{place}/{i}"] * 3)) == [str(i).encode()] * 3
            with objects.using({}), pytest.raises(ObjectError, match="NoCredentials"):
                files.exists(f"{place}/1")

        s3.seen.clear(), second.seen.clear()
        with ThreadPoolExecutor(2) as both:
            jobs = [both.submit(work, *pair) for pair in ((s3, first_place), (second, second_place))]
            assert [job.result() for job in jobs] == [None, None]
        assert not any("shared-2" in r["PATH_INFO"] for r in s3.seen)
        assert not any("shared-1" in r["PATH_INFO"] for r in second.seen)


def test_what_is_read_ahead_is_reached_likewise(bucket):
    files.write_bytes(f"{bucket}/x", b"data")
    assert list(read_ahead(files.read_bytes(f"{bucket}/x") for _ in range(3))) == [b"data"] * 3


def test_no_pool_of_threads_forgets_the_options():
    """Pools that read or write files are made by `objects.threads`; these do neither, or their tasks set options."""
    others = {"storage/objects.py", "flows/runners.py", "tasks/embed/open_clip.py", "tasks/embed/encoder.py"}
    others |= {"tasks/score/image_hash.py", "tasks/score/pair_tokens.py"}
    others |= {"tasks/annotate/nearest.py", "tasks/sample/cabs.py", "tasks/emit/values.py"}
    others |= {"storage/leases.py"}  # its thread runs in a copy of the context
    found = {
        str(path.relative_to(CHECKOUT))
        for folder in ("flows", "tasks", "storage")
        for path in (CHECKOUT / folder).rglob("*.py")
        if re.search(r"ThreadPoolExecutor\(|Thread\(", path.read_text())
    }
    assert found <= others


def test_a_missing_package_is_named_with_the_setting_and_the_extra(monkeypatch):
    from configs.curate import Curate

    for url, extra in (("s3://bucket/in", "s3"), ("gs://bucket/in", "gcs"), ("simplecache::gcs://b/in", "gcs")):
        config = Curate.model_validate({"input": {"path": url}, "embed": None})
        require_packages(config)
        with monkeypatch.context() as patch:
            patch.setattr("configs.storage.find_spec", lambda name: None)
            with pytest.raises(ValueError) as refused:
                require_packages(config)
        assert str(refused.value) == f"`input.path` is '{url}'; install the extra: pip install 'mixwright[{extra}]'"
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ValueError, match=r"s3://bucket/in needs a package .* pip install 'mixwright\[s3\]'"):
        files.filesystem("s3://bucket/in")


def test_local_and_memory_files_are_plain_fsspec(tmp_path):
    for url in (str(tmp_path), "memory://x"):
        assert isinstance(files.filesystem(url)[0], fsspec.AbstractFileSystem)
