"""What orchestration costs: the curate flow under a Prefect server against the same stages called plainly.

    python tests/benchmarks/bench_flow.py [--rows 1000000] [--repeats 2]

Both run every stage over fresh stores, in turn. The flow's time is that of the whole call, server start-up left out.
Goal: at most 3 % at a million rows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import yaml

os.environ["DO_NOT_TRACK"] = "1"  # before prefect is imported
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

from prefect.testing.utilities import prefect_test_harness
from synthetic import VOCABULARY, settings, write_synthetic

from configs.loading import validate
from flows.curate import curate as flow
from flows.pipeline import curate as plainly
from flows.runners import PlainRunner


def timed(folder: Path, call) -> float:
    for name in ("store", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "in").exists():
            write_synthetic(folder / "in", options.shards, options.rows // options.shards, 2400)
        (folder / "vocabulary.txt").write_text("\n".join(VOCABULARY.to_pylist()))
        values = settings(folder)

        def by_flow() -> None:
            state = flow(preset="plain", overrides=yaml.safe_dump(values), return_state=True)
            assert state.is_completed(), state.message

        def by_hand() -> None:
            plainly(validate(values), PlainRunner(values["runner"]["workers"]), lambda line: None)

        by_hand()  # compiled kernels, warm file cache
        with prefect_test_harness(server_startup_timeout=120):
            plain, orchestrated = [], []
            for _ in range(options.repeats):
                plain.append(timed(folder, by_hand))
                orchestrated.append(timed(folder, by_flow))
    a, b = statistics.mean(plain), statistics.mean(orchestrated)
    print(f"{options.rows:,} rows, {os.cpu_count()} cores, {options.repeats} runs each")
    print(f"  plainly {a:6.1f} s {[round(x, 1) for x in plain]}")
    print(f"  flow    {b:6.1f} s {[round(x, 1) for x in orchestrated]}")
    print(f"  orchestration {100 * (b - a) / a:+.1f} % (goal: at most 3 %)")


if __name__ == "__main__":
    main()
