import threading

import fsspec
import pytest

from storage import files


@pytest.fixture(params=["local", "memory"])
def base(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_a_file_appears_whole_or_not_at_all(base):
    url = files.join(base, "a", "b.bin")
    with pytest.raises(RuntimeError), files.publishing(url) as file:
        file.write(b"half")
        raise RuntimeError
    assert not files.exists(url) and files.names(files.join(base, "a")) == []
    files.write_bytes(url, b"whole")
    assert files.read_bytes(url) == b"whole" and files.size(url) == 5


def test_readers_have_positions_of_their_own(base):
    url = files.join(base, "x")
    files.write_bytes(url, bytes(range(200)))
    with files.reading(url) as one, files.reading(url) as two:
        assert one.read(3) == bytes(range(3)) and two.read(2) == bytes(range(2)) and one.read(1) == b"\x03"


def test_a_second_writer_replaces_whole_files(base):
    url = files.join(base, "x")
    threads = [threading.Thread(target=files.write_bytes, args=(url, bytes([i]) * 100_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(files.read_bytes(url))) == 1


def test_only_old_temporaries_are_swept(tmp_path):
    (tmp_path / ".part.parquet.host.1.abc.tmp").write_bytes(b"x")
    assert files.sweep(str(tmp_path)) == 0
    assert files.sweep(str(tmp_path), older_than=-1) == 1 and not list(tmp_path.iterdir())


def test_writing_is_tried_where_the_folder_is_or_would_be_and_leaves_nothing(base, tmp_path):
    files.write_bytes(files.join(base, "there", "x"), b"x")
    for folder in ("there", "new", "new/deep/er"):
        files.try_writing(files.join(base, folder))
    assert files.names(base) == ["there"] and files.names(files.join(base, "there")) == ["x"]
    assert sorted(path.name for path in tmp_path.rglob("*")) in ([], ["there", "x"])


def test_writing_where_nobody_can_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder in (
        "/proc/mixwright",
        "/proc/self/net/x",
        f"{tmp_path}/file",
        f"{tmp_path}/file/x",
        f"{tmp_path}/dangling",
    ):
        with pytest.raises(OSError):
            files.try_writing(folder)


def test_removing_what_is_gone_is_no_error(base):
    files.remove(files.join(base, "nothing"))


def test_object_stores_go_through_fsspec():
    assert isinstance(files.filesystem("memory://x/y")[0], fsspec.get_filesystem_class("memory"))
    assert not files.is_local("memory://x") and files.is_local("x/y")
