"""Which emoji are variants of one base, and a split that keeps variants together.

Half of the captions are skin tones of one another: a split of pictures at random would hold out what was learnt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# Skin tones, the variation selector, the gender signs, hair; a joiner and what it joins disappear together.
DETAILS = re.compile(r"-(?:1F3F[B-F]|FE0F|(?:200D-)?(?:2640|2642|1F9B[0-3]))(?![0-9A-F])")
FACING_RIGHT = re.compile(r"-200D-27A1$")
PEOPLE = {"1F468": "1F9D1", "1F469": "1F9D1", "1F466": "1F9D2", "1F467": "1F9D2", "1F474": "1F9D3", "1F475": "1F9D3"}
"""Man and woman are person; boy and girl, child; old man and old woman, older person."""
FAMILY = re.compile(r"1F9D1-.*1F9D2")
SAME = {
    "1F46B": "1F9D1-200D-1F91D-200D-1F9D1",  # holding hands
    "1F46C": "1F9D1-200D-1F91D-200D-1F9D1",
    "1F46D": "1F9D1-200D-1F91D-200D-1F9D1",
    "1F9D1-200D-2764-200D-1F48B-200D-1F9D1": "1F48F",  # kiss
    "1F9D1-200D-2764-200D-1F9D1": "1F491",  # couple with heart
    "1F9D1-200D-1F430-200D-1F9D1": "1F46F",  # with bunny ears
    "1F9D1-200D-1FAEF-200D-1F9D1": "1F93C",  # wrestling
    "1FAF1-200D-1FAF2": "1F91D",  # handshake
    "1F478": "1F934",  # princess, person with crown: prince
    "1FAC5": "1F934",
    "1F936": "1F385",  # Mrs. Claus, Mx Claus: Santa
    "1F9D1-200D-1F384": "1F385",
    "1F57A": "1F483",  # dancing
    "1F471": "1F9D1",  # blond hair, beard
    "1F9D4": "1F9D1",
    "1FAC3": "1F930",  # pregnant
    "1FAC4": "1F930",
}
"""Variants that have code points of their own."""


def base(key: str) -> str:
    """The key of the emoji that `key` varies by skin tone, hair, gender or direction: "1F44D-1F3FD" gives "1F44D"."""
    plain = FACING_RIGHT.sub("", DETAILS.sub("", key))
    plain = "-".join(PEOPLE.get(code, code) for code in plain.split("-"))
    return "1F46A" if FAMILY.match(plain) else SAME.get(plain, plain)


def hold_out(bases: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Which rows are held out, bool `(n,)`: all variants of `fraction` of the bases, drawn with `seed`."""
    names = np.unique(np.asarray(bases))
    drawn = np.random.default_rng(seed).permutation(names)[: round(fraction * len(names))]
    return np.isin(np.asarray(bases), drawn)


def plainest(keys: Sequence[str], bases: Sequence[str], among: np.ndarray) -> np.ndarray:
    """One row of each base among the rows where `among` holds, ascending int64: the one with the shortest key."""
    first: dict[str, int] = {}
    for row in sorted(np.flatnonzero(among).tolist(), key=lambda row: (len(keys[row]), keys[row])):
        first.setdefault(bases[row], row)
    return np.array(sorted(first.values()), np.int64)
