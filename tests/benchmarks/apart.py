"""Measurements in processes of their own, so that one's memory is not another's, and how time grows with rows."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def run_apart(file: str, *arguments: str) -> dict[str, Any]:
    """What `file --one arguments…` prints as JSON on its last line."""
    command = [sys.executable, file, "--one", *arguments]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])


def exponent(rows: Sequence[int], seconds: Sequence[float]) -> float:
    """The power of the number of rows that time grows with, from the first size to the last."""
    return math.log(seconds[-1] / seconds[0]) / math.log(rows[-1] / rows[0])
