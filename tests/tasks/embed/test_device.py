"""Finding the device without torch, and owning it."""

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading

import pytest

from tasks.embed import device
from tasks.embed.device import device_slot, resolve_device, slot_path


def test_cpu_is_cpu_and_an_unknown_name_is_refused():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="`device` is 'tpu'"):
        resolve_device("tpu")


def test_auto_agrees_with_torch():
    import torch

    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_without_a_device_auto_is_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(device, "_visible_devices", lambda: 0)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match="`device` is 'cuda', but no CUDA device"):
        resolve_device("cuda")


def test_a_torch_without_cuda_leaves_a_device_alone(monkeypatch):
    monkeypatch.setattr(device, "_visible_devices", lambda: 2)
    monkeypatch.setattr(device, "_torch_has_cuda", lambda: False)
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(device, "_torch_has_cuda", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"


def test_neither_torch_nor_open_clip_is_imported_to_plan():
    code = """
        import sys
        from configs.methods.embed import OpenClip
        from tasks.embed.device import resolve_device
        from tasks.embed.open_clip import OpenClipEmbedder, resolved_batch_size
        config = OpenClip()
        assert resolved_batch_size(config, "cpu") == 64 and resolved_batch_size(config, "cuda") == 512
        OpenClipEmbedder(config).needs, resolve_device("auto")
        assert not {"torch", "open_clip", "torchvision"} & set(sys.modules), "heavy"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


HOLDER = """
    import sys, time
    from tasks.embed.device import device_slot
    print("go", flush=True)
    with device_slot("cuda", lambda told: print(told, flush=True)):
        print("held", flush=True)
        time.sleep(60)
"""


def holder(folder) -> subprocess.Popen:
    """A process that takes the slot as soon as it is free."""
    command, environment = [sys.executable, "-c", textwrap.dedent(HOLDER)], os.environ | {"TMPDIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "go\n"
    return process


def killed(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_process_at_a_time_and_a_killed_one_frees_the_slot(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one = holder(tmp_path)
    assert one.stdout.readline() == "held\n"
    two = holder(tmp_path)
    try:
        waits = f"waits for the GPU, held by pid {one.pid} on host {socket.gethostname()} since 20"
        assert two.stdout.readline().startswith(waits)
        entered, told = threading.Event(), []

        def enter():
            with device_slot("cuda", told.append):
                entered.set()

        waiter = threading.Thread(target=enter)
        waiter.start()
        assert not entered.wait(0.5)
        with device_slot("cpu"):  # nothing to wait for
            pass
        killed(one)
        # One of the two has it now; when that is the other process, it must be killed for this one to go on.
        if not entered.wait(2):
            assert two.stdout.readline().startswith("has the GPU after ") and two.stdout.readline() == "held\n"
            killed(two)
        waiter.join(30)
        assert entered.is_set() and len(told) == 2
        assert told[0].startswith(waits) and told[1].startswith("has the GPU after ")
    finally:
        for process in (one, two):
            process.kill()
            process.wait()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x", "host": 1, "since": 2}'])
def test_a_holder_that_left_no_name_is_another_process(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    handle = os.open(tmp_path / "lock", os.O_RDONLY)
    assert device._holder(handle) == "another process"
    os.close(handle)


def test_a_name_left_by_a_process_that_has_died_is_not_told(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    for pid, told in ((gone.pid, "another process"), (os.getpid(), f"pid {os.getpid()} on host ")):
        os.pwrite(handle, f'{{"pid": {pid:>9}, "host": "{socket.gethostname()}", "since": "s"}}'.encode(), 0)
        assert device._holder(handle).startswith(told)
    os.close(handle)


def test_threads_of_one_process_share_the_slot(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    both = threading.Barrier(2, timeout=30)

    def enter():
        with device_slot("cuda"):
            both.wait()

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken and device._users == 0


def test_slots_are_told_apart_by_the_first_visible_device(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    three = slot_path()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1/../x")
    assert three != slot_path() and slot_path().parent == three.parent
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    zero = slot_path()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert slot_path() == zero
