"""How far the passport's estimates are from what a run takes: time and CPU stage by stage, storage, and Prefect's share.

    python tests/benchmarks/bench_passport.py [--folder demo] [--sample 1024] [--orchestrated] [--idle]

Curates the demo's emoji: a first run in a fresh store, then a rerun with another seed, where embed is done. Estimate
and run are plain, each run in a process of its own; `--orchestrated` runs the flow under a temporary server instead, as
`mixwright curate` does, and compares wall time alone. On a machine that does other work too, CPU seconds are what to
look at. `--idle` measures what Prefect takes for task runs that do nothing, between stages that rest.
Goal: within 30 % in all, storage too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

os.environ["DO_NOT_TRACK"] = "1"  # before prefect is imported
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

from configs import loading
from flows.openmoji import write_openmoji
from flows.sampling_run import child

ROW = "{:26} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}   {:>11} {:>11} {:>6}"


def settings(folder: Path, seed: int) -> dict:
    values = loading.preset("demo") | {"seed": seed, "store": f"{folder}/store"}
    return values | {"emit": {"out": f"{folder}/mixes"}, "input": values["input"] | {"path": f"{folder}/input"}}


def checked(folder: Path, values: dict, sample: int) -> tuple[dict, float]:
    """The passport, made by the command in a process of its own, and the seconds it took."""
    (folder / "bench.yaml").write_text(yaml.safe_dump(values))
    started = time.perf_counter()
    line = [sys.executable, "-m", "flows.cli", "check", str(folder / "bench.yaml"), "--sample", str(sample), "--json"]
    told = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(told.stdout), time.perf_counter() - started


def plainly(folder: Path, values: dict) -> dict[str, dict]:
    with child(str(folder)) as one:
        return one.run(loading.validate(values).model_dump(mode="json"))["stages"]


def orchestrated(folder: Path) -> dict[str, dict]:
    subprocess.run([sys.executable, "-m", "flows.cli", "curate", str(folder / "bench.yaml")], check=True)
    newest = max(folder.glob("mixes/*/*/report/report.json"), key=lambda path: path.stat().st_mtime)
    told = json.loads(newest.read_text())
    return {
        one["stage"]: {"seconds": one["seconds"] or 0.0, "cpu": 0.0, "bytes": one["written"] or 0}
        for one in told["stages"]
    }


def compare(title: str, passport: dict, actual: dict[str, dict], overhead: bool) -> None:
    print(title)
    print(
        ROW.format("stage", "est. s", "actual", "ratio", "est. CPU", "actual", "ratio", "est. bytes", "actual", "ratio")
    )
    total = {key: [0.0, 0.0] for key in ("seconds", "cpu", "bytes")}
    for one in passport["stages"]:
        stage, found = one["stage"], actual.get(one["stage"])
        if one["done"] or not found:
            print(f"{stage:26} {'done before' if one['done'] else 'not told'}")
            continue
        told = {key: one[key] for key in total}
        if not overhead:
            told["seconds"] -= one["orchestration"]
        cells: list[str] = []
        for key, format_ in (("seconds", "{:.2f}"), ("cpu", "{:.2f}"), ("bytes", "{:,.0f}")):
            estimated, took = told[key], found[key]
            total[key][0] += estimated
            total[key][1] += took
            ratio = f"{took / estimated:.2f}" if estimated else "-"
            cells += [format_.format(estimated), format_.format(took), ratio]
        print(ROW.format(stage, *cells))
    parts = [
        f"{key} {estimated:,.1f} estimated, {took:,.1f} taken, ratio {took / max(1e-9, estimated):.2f}"
        for key, (estimated, took) in total.items()
    ]
    print("total: " + "; ".join(parts) + "\n", flush=True)


def idle() -> None:
    """Seconds of stages with few and many task runs that do nothing."""
    from prefect import flow
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.run import Run
    from flows.runners import prefect_runner
    from flows.stages import timed
    from flows.watching import PrefectWatch
    from tasks.groups import each, stage_task

    @stage_task(name="nothing", task_run_name="nothing {label}")
    def nothing(shards: list[int], label: str) -> dict:
        return each(shards, lambda shard: None)

    @flow
    def resting() -> list[float]:
        values = loading.preset("plain") | {"runner": {"shards_per_task": 1}}
        config = loading.validate(values)
        with prefect_runner(config.runner) as runner:
            run = Run(config, runner, lambda line: None, PrefectWatch("bench", lambda line: None))
            for stage in range(10):
                time.sleep(1)  # as much as a server needs to write down what happened
                with timed(run, f"stage {stage}"):
                    for _ in range(4 if stage % 2 else 1):
                        run.each(nothing, "shards", [0] * 4)
        return [*run.seconds.values()]

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        seconds = resting()
    few, many = sorted(seconds[2::2])[2], sorted(seconds[3::2])[2]
    task = (many - few) / 12
    print(f"Prefect: {task:.4f} s a task run, {few - 4 * task:.4f} s a stage; stages took {seconds}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="With the demo's `input`; made if it has none.")
    parser.add_argument("--sample", type=int, default=1024)
    parser.add_argument("--orchestrated", action="store_true")
    parser.add_argument("--idle", action="store_true")
    options = parser.parse_args()
    if options.idle:
        idle()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.folder and (options.folder / "input").exists():
            (folder / "input").symlink_to((options.folder / "input").absolute())
        else:
            write_openmoji(str(folder / "input"))
        for title, seed in (("first run, fresh store", 0), ("rerun with another seed, embed is done", 1)):
            values = settings(folder, seed)
            passport, took = checked(folder, values, options.sample)
            actual = orchestrated(folder) if options.orchestrated else plainly(folder, values)
            compare(f"{title} (check took {took:.0f} s)", passport, actual, options.orchestrated)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
