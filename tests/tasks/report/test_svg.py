"""Line drawings: ticks at round numbers, shapes inside the frame, nothing where there is nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from accounts import batches
from hypothesis import given
from hypothesis import strategies as st

from tasks.report import coverage, svg


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (-0.15, 0.2, [-0.1, 0, 0.1, 0.2]),
        (0, 0.11, [0, 0.05, 0.1]),
        (17, 93, [20, 40, 60, 80]),
        (1000.2, 1000.9, [1000.2, 1000.4, 1000.6, 1000.8]),
        (3, 3, [3]),
    ],
)
def test_ticks(low, high, expected):
    assert svg.ticks(low, high, 4) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_few(low, width):
    found = svg.ticks(low, low + width, 5)
    assert found == sorted(set(found)) and 1 <= len(found) <= 7
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)


def points(drawing, tag):
    root = ET.fromstring(drawing)
    found = {shape.get("class"): shape.get("points").split() for shape in root.iter(tag)}
    return {name: [tuple(map(float, pair.split(","))) for pair in pairs] for name, pairs in found.items()}


def inside(pairs):
    return all(svg.LEFT <= x <= svg.WIDTH - svg.RIGHT and svg.TOP <= y <= svg.HEIGHT - svg.BOTTOM for x, y in pairs)


def test_rank_frequency():
    curves = [("before", [[1, 5000], [10, 40], [300, 1]]), ("after", [[1, 80], [200, 1]])]
    drawing = svg.rank_frequency(curves)
    found = points(drawing, "polyline")
    assert list(found) == ["before", "after"] and all(inside(pairs) for pairs in found.values())
    assert found["before"][0][0] == found["after"][0][0]  # rank 1 is one place
    assert found["before"][2][1] == found["after"][1][1]  # as is one occurrence
    for label in ("1", "10", "100", "1,000"):
        assert f">{label}</text>" in drawing
    assert svg.rank_frequency([("before", []), ("after", [])]) == ""
    assert "<circle" in svg.rank_frequency([("before", [[1, 1]]), ("after", [])])


@pytest.mark.parametrize("steps", [1, 2, 30, 5000])
def test_over_steps(steps):
    told = coverage.thinned([batches(steps)], steps)
    lines = [("ceiling", "offered_concepts"), ("after", "concepts")]
    drawing = svg.over_steps(told, lines, "concepts", title="t", up="u")
    found = points(drawing, "polyline")
    assert list(found) == ["ceiling", "after"] and all(inside(pairs) for pairs in found.values())
    assert all(len(pairs) == min(steps, coverage.POINTS) for pairs in found.values())
    band = points(drawing, "polygon").get("band", [])
    assert inside(band) and len(band) == (2 * coverage.POINTS if steps == 5000 else 0)  # bins of one step have no range
    # The larger of two values is drawn higher.
    for (x, y), (_, other), value, ceiling in zip(
        found["after"], found["ceiling"], told["bins"]["concepts"], told["bins"]["offered_concepts"], strict=True
    ):
        assert (y <= other) == (value >= ceiling) or abs(y - other) < 0.2
        assert svg.LEFT <= x
    middle = (svg.LEFT + svg.WIDTH - svg.RIGHT) / 2
    assert (f'<circle class="after" cx="{middle:.1f}"' in drawing) == (steps == 1)


def test_shares_by_rank():
    curves = [("before", [[1, 0.5], [1000, 1e-5]]), ("goal", [[1, 0.001], [1000, 0.001]])]
    drawing = svg.shares_by_rank(curves)
    found = points(drawing, "polyline")
    assert all(inside(pairs) for pairs in found.values())
    assert found["goal"][0][1] == found["goal"][1][1] and found["before"][0][0] == found["goal"][0][0]
    for label in ("10 %", "0.1 %", "0.001 %", "1,000"):
        assert f">{label}</text>" in drawing
    assert svg.shares_by_rank([("before", [])]) == "" and "<circle" in svg.shares_by_rank([("after", [[1, 1.0]])])


def test_histogram():
    drawing = svg.histogram([0, 0.1, 0.2, 0.3], [10, 20, 10], [0, 5, 15], [0.1, 7])
    found = points(drawing, "polygon")
    assert all(inside(pairs) for pairs in found.values())
    tops = {name: min(y for _, y in pairs) for name, pairs in found.items()}
    assert tops["after"] < tops["before"]  # three quarters of its rows against half
    assert len(re.findall('class="cut"', drawing)) == 1  # the other lies far outside
    assert points(svg.histogram([0, 1], [3], [0], []), "polygon").keys() == {"before"}
    assert svg.histogram([], [], [], []) == ""
