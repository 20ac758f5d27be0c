"""Runners: what they refuse, what they ask of clusters, and the same bytes and sentences from threads, Ray and Dask."""

from __future__ import annotations

import importlib.util
import pickle
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import yaml
from corpora import config, digests, run, sidecars, write_corpus

from configs.curate import Curate
from configs.errors import ConfigError, ModelError, PlaceError, RunFailed, catalogue
from configs.loading import validate
from configs.methods.annotate import ZeroShot
from configs.methods.embed import EmbeddingColumns, OpenClip
from configs.runner import Runner
from flows import clusters
from flows.pipeline import examine
from flows.runners import ClusterRunner, PrefectRunner
from storage.objects import NoObject
from tasks.embed.device import planned_for, resolve_device, slot_path
from tasks.groups import ItemsFailed


def settings(**runner) -> Curate:
    return validate({"input": {"path": "/data/in"}, "store": "/data/s", "emit": {"out": "/data/o"}, "runner": runner})


# ------------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("runner", "told"),
    [
        ({"address": "tcp://host:8786"}, "`runner`: `address` is 'tcp://host:8786'; that is for `kind` ray or dask"),
        ({"gpus_per_task": 1}, "`gpus_per_task` is 1.0; that is for `kind` ray or dask"),
        ({"kind": "ray", "address": "tcp://host:8786"}, "for ray it is like auto or ray://host:10001"),
        ({"kind": "dask", "address": "auto"}, "`address` is 'auto'; for dask it is like tcp://host:8786"),
        ({"kind": "ray", "gpus_per_task": 1.5}, "`gpus_per_task` is 1.5; above 1 it must be a whole number"),
        ({"kind": "slurm"}, "'threads', 'ray' or 'dask'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(runner, told):
    with pytest.raises(ConfigError) as refused:
        settings(**runner)
    assert told in str(refused.value)


def test_no_address_carries_a_password():
    with pytest.raises(ConfigError) as refused:
        settings(kind="dask", address="tcp://me:hunter22@host:8786")
    assert "hunter22" not in str(refused.value)


def test_a_package_that_is_missing_is_told_before_any_work(corpus, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlaceError, match=r"is ray, which is not installed: pip install 'mixwright\[ray\]'"):
        clusters.check(config(corpus, {"runner": {"kind": "ray"}}))


def test_relative_paths_are_refused_where_machines_have_folders_of_their_own(corpus):
    other = {"kind": "dask", "address": "tcp://host:8786"}
    clusters.check(settings(**other))
    with pytest.raises(PlaceError, match="`store` is 'mixwright-store', which each machine of the cluster at tcp://"):
        examine(config(corpus, {"store": "mixwright-store", "runner": other}))
    with pytest.raises(PlaceError, match="`input.path` is 'in', which each machine"):
        clusters.check(config(corpus, {"input": {"path": "in"}, "runner": other}))
    clusters.check(config(corpus, {"store": "s3://bucket/store", "runner": other}))
    clusters.check(
        config(corpus, {"store": "mixwright-store", "runner": {"kind": "dask"}})
    )  # its workers share a folder


def test_workers_elsewhere_need_a_server_they_can_reach():
    from prefect.settings import PREFECT_API_URL, temporary_settings

    far = Runner(kind="dask", address="tcp://10.0.0.7:8786")
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        with pytest.raises(ConfigError, match="set PREFECT_API_URL to its address"), clusters.cluster(far):
            pass
    with temporary_settings({PREFECT_API_URL: "http://10.0.0.1:4200/api"}):
        assert clusters._api(far) == "http://10.0.0.1:4200/api"


def test_the_runner_changes_no_fingerprint():
    ours = [settings(kind=kind, workers=workers) for kind, workers in (("threads", 2), ("ray", 3), ("dask", 64))]
    assert len({str(one.output_fields()) for one in ours}) == 1


def test_options_of_pools():
    ray = clusters._ray(Runner(kind="ray", workers=3))
    assert ray.address is None and ray.init_kwargs["num_cpus"] == 3 and ray.init_kwargs["address"] == "local"
    # Prefect's runner would take `auto` for a cluster of its own.
    assert clusters._ray(Runner(kind="ray", address="auto")).init_kwargs["address"] == "auto"
    there = clusters._ray(Runner(kind="ray", address="ray://host:10001"))
    assert there.address == "ray://host:10001" and "num_cpus" not in there.init_kwargs
    dask = clusters._dask(Runner(kind="dask", workers=3))
    assert dask.cluster_kwargs["n_workers"] == 3 and dask.cluster_kwargs["threads_per_worker"] == 1
    assert clusters._dask(Runner(kind="dask", address="tcp://host:8786")).address == "tcp://host:8786"


# ----------------------------------------------------------------------------------------------------------------- GPUs
def asked(runner: Runner, **call) -> dict:
    """What a task that is submitted with these arguments asks the cluster for."""
    import dask
    from prefect_ray.context import RemoteOptionsContext

    with clusters.asking(runner, call):
        return {**RemoteOptionsContext.get().current_remote_options, **dask.get_annotations()}


def test_tasks_with_a_model_ask_for_gpus_and_others_do_not():
    ray, dask = Runner(kind="ray", gpus_per_task=0.5), Runner(kind="dask", gpus_per_task=1)
    model = OpenClip(device="cuda")
    assert asked(ray, config=model) == {"num_gpus": 0.5}
    assert asked(dask, config=ZeroShot(encoder=model)) == {"resources": {"GPU": 1}}
    for other in (EmbeddingColumns(image="v"), OpenClip(device="cpu"), ["no section"]):
        assert asked(ray, config=other) == asked(dask, config=other) == {}
    assert asked(Runner(kind="ray"), config=model) == {}


def test_the_plan_says_which_device_workers_use(monkeypatch):
    monkeypatch.setattr("tasks.embed.device._visible_devices", lambda: 0)
    with planned_for(True):
        assert resolve_device("auto") == resolve_device("cuda") == "cuda" and resolve_device("cpu") == "cpu"
        pinned = clusters.pinned(ZeroShot(encoder=OpenClip()))
    assert pinned.encoder.device == "cuda" and pinned.top_k == 5
    assert clusters.pinned(OpenClip()).device == "cpu" and clusters.pinned([1]) == [1]
    with planned_for(False), pytest.raises(ModelError):  # a worker without one says so
        resolve_device(pinned.encoder.device)


def test_the_lock_of_a_gpu_follows_the_device_that_ray_assigns(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first = slot_path()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert slot_path() != first
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert slot_path() == first


# -------------------------------------------------------------------------------------------------------- without a cluster
def test_what_tasks_raise_travels_between_processes():
    for error in (
        ItemsFailed([("a", "why"), ("b", "so")]),
        NoObject(2, "cannot read s3://b/x: there is no such object"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error)
    assert pickle.loads(pickle.dumps(ItemsFailed([("a", "why")]))).failed == [("a", "why")]
    for family in catalogue():
        assert str(pickle.loads(pickle.dumps(family("one sentence")))) == "one sentence"


class Pool:
    """Runs tasks in threads of its own and counts how many are submitted and not yet ended."""

    def __init__(self) -> None:
        self.current = self.most = 0
        self._lock = threading.Lock()

    def submit(self, task, parameters):
        with self._lock:
            self.current += 1
            self.most = max(self.most, self.current)
        return Future(self, task, parameters)

    def ended(self) -> None:
        with self._lock:
            self.current -= 1


class Future:
    def __init__(self, pool: Pool, task, parameters) -> None:
        self.task_run_id, self._pool, self._task, self._parameters = uuid4(), pool, task, parameters

    def add_done_callback(self, told) -> None:
        def work() -> None:
            self._pool.ended()
            told(self)

        threading.Timer(0.001 * self._parameters["wait"], work).start()

    def result(self, raise_on_failure):
        return self._task(self._parameters)


def test_no_more_is_submitted_than_may_run_and_outcomes_stand_in_order():
    pool, done = Pool(), []
    calls = [{"wait": (7 * i) % 5, "number": i} for i in range(23)]
    found = PrefectRunner(pool, 3).run(lambda call: call["number"] ** 2, calls, done.append)  # type: ignore[arg-type]
    assert found == [i**2 for i in range(23)] and sorted(done) == list(range(23)) and pool.most == 3


@pytest.mark.parametrize("kind", ["ray", "dask"])
def test_a_worker_that_is_gone_for_good_is_one_sentence(kind):
    def gone(call):
        if kind == "ray":
            import ray

            raise ray.exceptions.WorkerCrashedError()
        import distributed

        raise distributed.KilledWorker("embed", SimpleNamespace(address="tcp://1.2.3.4:5"), 3)

    (outcome,) = ClusterRunner(Pool, Runner(kind=kind)).run(gone, [{"wait": 0}], lambda _: None)  # type: ignore[arg-type]
    assert type(outcome) is RunFailed and str(outcome).startswith(
        f"a worker of the {kind} cluster was lost at its work ("
    )


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def fail(config):
        raise Exception("the node timed out during startup")  # so Ray does

    monkeypatch.setattr(clusters, "_ray", fail)
    with temporary_settings({PREFECT_API_URL: "http://10.0.0.1:4200/api"}):
        with pytest.raises(RunFailed, match=r"no ray cluster answers at `runner.address` ray://h:1: .*the node timed"):
            with clusters.cluster(Runner(kind="ray", address="ray://h:1")):
                pass


# ------------------------------------------------------------------------------------------------- with real clusters
def press(folder: Path, **runner):
    """Run the flow over the corpus in `folder`."""
    from flows.curate import curate

    values = config(folder, {"runner": {"workers": 2, **runner}}).model_dump(mode="json")
    return curate(preset="plain", overrides=yaml.safe_dump(values), return_state=True)


@pytest.mark.nightly
@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_two_processes_give_the_same_bytes_and_sentences_as_threads(kind, tmp_path, monkeypatch):
    write_corpus(tmp_path / "plain" / "in")
    shutil.copytree(tmp_path / "plain" / "in", tmp_path / "cluster" / "in", copy_function=shutil.copy2)
    plain = Path(run(config(tmp_path / "plain")).url)
    # A folder stands where one shard's sidecar is to be: the task on a worker fails.
    done = next((tmp_path / "plain" / "store" / "embed" / "columns").glob("*/*.json"))
    barred = tmp_path / "cluster" / done.relative_to(tmp_path / "plain").with_suffix(".parquet")
    barred.mkdir(parents=True)
    state = press(tmp_path / "cluster", kind=kind)
    told = r"1 of 7 shards failed; rerun to retry only those\. First: 0000\d\.parquet: IsADirectoryError: .*"
    assert state.is_failed() and re.fullmatch(told, state.message), state.message
    assert len([*barred.parent.glob("*.json")]) == 6
    barred.rmdir()
    state = press(tmp_path / "cluster", kind=kind)
    assert state.is_completed(), state.message
    ours = Path(state.result())
    parts = ("data", "ledger", "quarantine")
    assert digests(ours, *parts) == digests(plain, *parts) and len(digests(ours, *parts)) >= 4
    assert sidecars(tmp_path / "cluster" / "store") == sidecars(tmp_path / "plain" / "store")
    monkeypatch.setattr(clusters, "cluster", lambda config: pytest.fail("a run that finds all done started a cluster"))
    assert press(tmp_path / "cluster", kind=kind, shards_per_task=1).message == state.message
