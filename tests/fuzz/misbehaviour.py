"""Jobs that do what the harness must survive."""

import os
import signal
import time


def misbehave(seed):
    """Case 3 crashes as C code does, 5 hangs, 7 raises, 9 prints as C code does."""
    if seed == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == 5:
        time.sleep(60)
    if seed == 9:
        os.write(2, b"x" * 1000)
    return f"fine {1 / (seed - 7):.2f}"


def hoard(megabytes):
    """Holds so much memory for a moment."""
    return f"held {len(os.urandom(1 << 20) * megabytes) >> 20}"
