"""Finding the device without torch, and owning it."""

import os
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
    with device_slot("cuda"):
        print("held", flush=True)
        time.sleep(60)
"""


def test_one_process_at_a_time_and_a_killed_one_frees_the_slot(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    entered = threading.Event()

    def enter():
        with device_slot("cuda"):
            entered.set()

    waiter = threading.Thread(target=enter)
    waiter.start()
    try:
        assert not entered.wait(0.3)
        with device_slot("cpu"):  # nothing to wait for
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    waiter.join(30)
    assert entered.is_set()


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
