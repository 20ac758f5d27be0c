"""Task runs that a Prefect server takes in a second: SQLite against PostgreSQL.

    python tests/benchmarks/bench_server.py [--runs 1000] [--repeats 3]

Each repeat: a flow of empty tasks, mapped over 4 threads; how fast the flow hands them over, how long its process
takes, and when the server's count has all of them. Right behind it a flow of 200 tasks: what a backlog costs the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from postgres import postgres, programs
from served import ask, free_port

from flows.place import PRIVATE, Place, server

PROGRAM = """
import sys, time
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

@task
def nothing(number): return number

@flow(name="bench", task_runner=ThreadPoolTaskRunner(max_workers=4))
def bench(count):
    began = time.perf_counter()
    nothing.map(range(count)).wait()
    print(time.perf_counter() - began, flush=True)

bench(int(sys.argv[1]))
"""


def completed(api: str) -> int:
    """Task runs that the server has as completed."""
    return int(ask(api, "/task_runs/count", {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}))


def flow(place: Place, count: int) -> tuple[float, float]:
    """Seconds inside a flow of `count` tasks, and of its whole process."""
    environment = os.environ | PRIVATE | {"PREFECT_API_URL": place.api, "PREFECT_HOME": str(place.home)}
    environment |= {"PREFECT_LOGGING_LEVEL": "ERROR"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(count)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1]), time.perf_counter() - began


def measure(place: Place, count: int) -> dict[str, float]:
    """One repeat."""
    before, began = completed(place.api), time.perf_counter()
    inside, process = flow(place, count)
    _, after_process = flow(place, 200)
    while completed(place.api) < before + count + 200:
        time.sleep(0.1)
    ingested = time.perf_counter() - began
    return {"inside": inside, "process": process, "next": after_process, "all": (count + 200) / ingested}


def alone(place: Place, count: int) -> float:
    """Task runs ingested in a second, nothing behind them: from the flow's start to the server's count."""
    before, began = completed(place.api), time.perf_counter()
    flow(place, count)
    while completed(place.api) < before + count:
        time.sleep(0.1)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.runs:,} empty task runs, {os.cpu_count()} cores, {options.repeats} repeats")
    kinds = ["sqlite", "postgres"] if programs() else ["sqlite"]
    for kind in kinds:
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            env = stack.enter_context(postgres()) if kind == "postgres" else {}
            port = free_port()
            place = Place(f"http://127.0.0.1:{port}/api", home, env)
            began = time.perf_counter()
            stack.enter_context(server(place, port))
            print(f"{kind}: server up after {time.perf_counter() - began:.1f} s", flush=True)
            flow(place, 10)
            single = [alone(place, options.runs) for _ in range(options.repeats)]
            print(f"  alone: {' '.join(f'{one:.1f}' for one in single)} task runs/s", flush=True)
            found = [measure(place, options.runs) for _ in range(options.repeats)]
            for name, what in (
                ("inside", "s inside the flow"),
                ("process", "s for its process"),
                ("next", "s for the process of the next flow, of 200 tasks"),
                ("all", "task runs/s over both"),
            ):
                values = [one[name] for one in found]
                print(f"  {statistics.mean(values):6.1f} {what} ({' '.join(f'{v:.1f}' for v in values)})", flush=True)


if __name__ == "__main__":
    main()
