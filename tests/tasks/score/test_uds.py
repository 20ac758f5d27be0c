"""UDS: golden numbers of the worked example, every listed property, and errors against float64 on hard matrices."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import states
from tasks.score import nuclear
from tasks.score.uds import LogitSketch, MemoryBuffer, alpha_factor, nuclear_norm, top_k, utility_diversity

NUMBERS = st.floats(-100, 100, width=32)
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads cost more than they give for matrices as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def exact(matrix):
    """The nuclear norm of one matrix by a float64 SVD."""
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False).sum()


def one(matrix, dtype=np.float64):
    return float(nuclear_norm(np.asarray(matrix, dtype)[None])[0])


def released(logits, sketch):
    """The projection as UDS's public code makes it, in float64: full transforms of padded logits."""
    signs, index = (sketch.length_signs, sketch.vocab_signs), (sketch.length_index, sketch.vocab_index)
    padded = np.zeros((len(logits), len(signs[0]), len(signs[1])))
    padded[:, : logits.shape[1]] = logits
    factors = [math.sqrt(len(s) / len(i)) for s, i in zip(signs, index)]
    waves = factors[1] * np.fft.fft(padded * signs[1], axis=-1).real[..., index[1]]
    both = factors[0] * np.fft.fft(waves * signs[0][:, None], axis=-2).real[:, index[0]]
    return both.reshape(len(logits), -1)


@pytest.fixture
def worked():
    """The worked example: three samples and a sketch of 4 x 4."""
    a, b, c = np.zeros((3, 4, 4))
    a[0, 0] = a[1, 1] = b[0, 0] = b[0, 1] = b[1, 0] = b[1, 1] = c[1, 3] = c[2, 0] = 1
    c[0, 2] = 2
    return np.stack([a, b, c]), LogitSketch.from_parts([1, -1, 1, 1], [1, 1, -1, 1], [1, 3], [0, 2])


# The nuclear norm


def test_golden_norms():
    for matrix, norm in ((np.diag([3, 4]), 7), (np.ones((2, 2)), 2), (np.diag([10, 0]), 10), (np.eye(2), 2)):
        assert one(matrix) == pytest.approx(norm, abs=1e-12)
        assert one(matrix, np.float32) == pytest.approx(norm, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 2**32), st.floats(-50, 50))
def test_norm_properties(shape, seed, factor):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal(shape) * rng.integers(0, 2, shape)
    norm, frobenius = one(matrix), np.linalg.norm(matrix)
    assert norm == pytest.approx(exact(matrix), rel=1e-6, abs=1e-12)
    assert one(factor * matrix) == pytest.approx(abs(factor) * norm, rel=1e-6, abs=1e-12)
    rank = np.linalg.matrix_rank(matrix)
    assert frobenius <= norm * (1 + 1e-6) and norm <= math.sqrt(rank) * frobenius * (1 + 1e-6)
    assert one(matrix[rng.permutation(shape[0])][:, rng.permutation(shape[1])]) == pytest.approx(norm, rel=1e-6)
    turn = np.linalg.qr(rng.standard_normal((shape[0], shape[0])))[0]
    assert one(turn @ matrix) == pytest.approx(norm, rel=1e-6, abs=1e-12)
    assert one(np.vstack([matrix, np.zeros((3, shape[1]))])) == pytest.approx(norm, rel=1e-6, abs=1e-12)


def test_sandwich_is_tight_at_its_ends():
    rank_one, level = np.outer(normal(5), normal(9, seed=1)), np.linalg.qr(normal(9, 5))[0].T * 3
    assert one(rank_one) == pytest.approx(np.linalg.norm(rank_one), rel=1e-6)
    assert one(level) == pytest.approx(math.sqrt(5) * np.linalg.norm(level), rel=1e-9)
    uneven = np.diag([1.0, 2.0])
    assert np.linalg.norm(uneven) < one(uneven) < math.sqrt(2) * np.linalg.norm(uneven)


def test_repeated_rows_give_less_than_orthogonal_ones():
    row = normal(40)
    assert one(np.tile(row, (16, 1))) == pytest.approx(4 * np.linalg.norm(row), rel=1e-6)
    assert one(np.linalg.qr(normal(40, 16))[0].T * np.linalg.norm(row)) == pytest.approx(16 * np.linalg.norm(row))


def test_a_constant_counts_and_more_rank_may_be_less():
    matrix = normal(8, 30)
    assert one(matrix + 5) > 1.3 * one(matrix)
    assert one(np.diag([10, 0])) > one(np.eye(2))


def hard():
    """Names and float64 matrices on which a float32 Gram matrix alone would fail, and some on which not."""
    n, v = 48, 700
    x, row, column = normal(n, v), normal(1, v, seed=1), normal(n, 1, seed=2)
    turn = np.linalg.qr(normal(n, n, seed=3))[0]
    return {
        "gaussian": x,
        "rank 1": column @ row,
        "rank 2": column @ row + normal(n, 1, seed=4) @ normal(1, v, seed=5),
        "same row": np.ones((n, 1)) @ row,
        "constant": np.full((n, v), 7.3),
        "offset": x + 1e4,
        "large offset": x + 1e6,
        "offsets by position": x + 1e4 * column,
        "offsets by token": x + 1e4 * row,
        "falling": turn * np.arange(1.0, n + 1) ** -3 @ normal(n, v, seed=6),
        "half zero rows": x * (np.arange(n) % 2)[:, None],
        "zeros": np.zeros((n, v)),
        "more positions than tokens": x.T,
        "offset, more positions than tokens": x.T + 1e5,
        "one position": row,
        "one token": column,
        "one number": np.array([[-3.0]]),
        "tiny": x * 1e-30,
        "tiny rank 1": column @ row * 1e-30,
        "huge": x * 1e30,
        "huge offset": (x + 1e4) * 1e30,
        "denormal": x * 1e-41,
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_error_on_every_matrix(dtype):
    wrong = {}
    for name, matrix in hard().items():
        logits = torch.from_numpy(matrix).to(dtype)
        if not logits.isfinite().all():
            continue  # float16 ends at 65,504
        norm, found = exact(logits.double().numpy()), nuclear_norm(logits[None])
        assert found.shape == (1,) and found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        error = abs(float(found) - norm)
        if not error <= 1e-5 * norm + (1e-44 if name == "denormal" else 0):
            wrong[name] = error / norm
    assert not wrong


def test_float64_numbers_of_any_size():
    for size in (1e-300, 1e-160, 1e160, 1e300):
        assert one(normal(5, 9) * size) == pytest.approx(exact(normal(5, 9)) * size, rel=1e-9)


def test_bound_of_float32_holds_and_lets_well_conditioned_matrices_pass():
    passed = set()
    for name, matrix in hard().items():
        logits = torch.from_numpy(matrix).float()
        norm, bound = nuclear._norm_by_float32(nuclear._Matrix(logits, None))
        if torch.isfinite(bound):
            assert abs(float(norm) - exact(logits.numpy())) <= float(bound), name
        if bound <= nuclear._TOLERANCE * norm:
            passed.add(name)
    assert {"gaussian", "offset", "large offset", "offsets by token", "same row", "constant"} <= passed
    assert not passed & {"rank 1", "rank 2", "offsets by position", "falling", "tiny", "huge"}


def test_without_float32_products_the_norm_and_sketch_are_as_exact():
    logits, sketch = torch.from_numpy(normal(1, 40, 600)).float(), LogitSketch(64, 600)
    try:
        torch.set_float32_matmul_precision("medium")
        norm, z = nuclear_norm(logits), sketch.project(logits)
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu", torch.bfloat16):
        also = nuclear_norm(logits), sketch.project(logits)
    for found in ((norm, z), also):
        assert float(found[0]) == pytest.approx(exact(logits[0].numpy()), rel=1e-6)
        np.testing.assert_allclose(found[1], released(logits.numpy(), sketch), atol=1e-5 * float(z.abs().max()))


def test_pieces_do_not_change_the_norm(monkeypatch):
    logits = torch.from_numpy(normal(2, 30, 1001)).float()
    whole = nuclear_norm(logits), nuclear_norm(logits.mT), nuclear_norm(logits.double())
    monkeypatch.setattr(nuclear, "_PIECE", 1000)
    for before, found in zip(whole, (nuclear_norm(logits), nuclear_norm(logits.mT), nuclear_norm(logits.double()))):
        np.testing.assert_allclose(found, before, rtol=1e-6)


def test_masked_positions_are_rows_of_zeros():
    logits = normal(3, 7, 20).astype(np.float32)
    mask = np.array([[True] * 7, [False, False, True, True, True, False, True], [False] * 7])
    dirty = np.where(mask[..., None], logits, np.nan).astype(np.float32)
    clean = np.where(mask[..., None], logits, 0).astype(np.float32)
    expected = [exact(matrix) for matrix in clean]
    np.testing.assert_allclose(nuclear_norm(dirty, mask), expected, rtol=1e-6)
    np.testing.assert_allclose(nuclear_norm(clean), expected, rtol=1e-6)
    assert nuclear_norm(dirty, mask)[2] == 0
    tall, kept = normal(1, 20, 4), np.arange(20)[None] % 3 > 0
    assert nuclear_norm(tall, kept)[0] == pytest.approx(exact(tall[0, kept[0]]))
    sketch = LogitSketch(9, 20)
    np.testing.assert_allclose(sketch.project(dirty, mask), released(clean, sketch), rtol=1e-4, atol=1e-3)
    assert (sketch.project(dirty, mask)[2] == 0).all()
    # padding with logits counts, unless it is masked
    assert nuclear_norm(logits)[1] > 1.1 * expected[1]


def test_not_finite_is_nan_and_no_other_sample_knows():
    logits = normal(4, 6, 30).astype(np.float32)
    alone = nuclear_norm(logits[3:])
    logits[0, 2, 3], logits[1, 0, 0], logits[2, 5, 29] = np.nan, np.inf, -np.inf
    for given_logits in (logits, logits.astype(np.float64)):
        norms = nuclear_norm(given_logits)
        assert np.isnan(norms[:3]).all() and norms[3] == pytest.approx(alone[0])
    assert nuclear_norm(logits)[3] == alone[0]
    z = LogitSketch(6, 30).project(logits)
    assert (~np.isfinite(z)).any(1).tolist() == [True, True, True, False]


def test_a_sample_does_not_depend_on_the_others():
    logits, sketch = torch.from_numpy(normal(5, 12, 300)).float(), LogitSketch(16, 300)
    for score in (nuclear_norm, sketch.project):
        assert torch.equal(score(logits), torch.cat([score(x[None]) for x in logits]))


def test_kinds_in_are_kinds_out():
    logits, sketch = normal(2, 5, 8), LogitSketch(5, 8)
    for dtype, wanted in ((np.float64, np.float64), (np.float32, np.float32), (np.float16, np.float32)):
        read_only = logits.astype(dtype)
        read_only.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = nuclear_norm(read_only), sketch.project(read_only[:, ::-1])
        assert all(isinstance(x, np.ndarray) and x.dtype == wanted for x in found)
    learned = torch.from_numpy(logits).requires_grad_()
    for found in (nuclear_norm(learned), sketch.project(learned)):
        assert found.dtype == torch.float64 and not found.requires_grad
    assert nuclear_norm(np.eye(3, dtype=np.int64)[None])[0] == pytest.approx(3)
    for empty in ((0, 3, 8), (2, 0, 8)):
        assert nuclear_norm(np.zeros(empty)).tolist() == [0] * empty[0]
        assert sketch.project(np.zeros(empty)).shape == (empty[0], sketch.dim)


@pytest.mark.parametrize(
    ("logits", "mask", "message"),
    [
        (np.zeros((3, 4)), None, r"`logits` has shape \(3, 4\); it must have 3 dimensions"),
        (np.zeros((1, 3, 4), complex), None, "real numbers"),
        (np.array([[["a"]]]), None, "real numbers"),
        (torch.zeros(1, 2, 3, dtype=torch.bool), None, "real numbers"),
        ([[[1.0]]], None, "numpy array or a torch tensor"),
        (
            np.zeros((1, 3, 4)),
            np.ones((1, 4), bool),
            r"`mask` is torch.bool of shape \(1, 4\); it must be bool of \(1, 3\)",
        ),
        (np.zeros((1, 3, 4)), np.ones((1, 3)), "must be bool"),
    ],
)
def test_bad_logits_are_told(logits, mask, message):
    with pytest.raises(ValueError, match=message):
        nuclear_norm(logits, mask)


# The sketch


def test_golden_sketches(worked):
    samples, sketch = worked
    np.testing.assert_allclose(nuclear_norm(samples), [2, 2, 4], atol=1e-12)
    golden = [[2, 2, 2, 2], [4, 0, 4, 0], [-6, -6, -6, -6]]
    np.testing.assert_allclose(sketch.project(samples), golden, atol=1e-12)
    found = sketch.project(torch.from_numpy(samples).bfloat16())
    np.testing.assert_allclose(found, golden, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "tokens", "positions", "dims"),
    [(16, 40, 9, (8, 128)), (512, 1024, 3, (8, 128)), (7, 2500, 7, (3, 5)), (1, 1, 1, (1, 1)), (20, 1025, 20, (30, 2))],
)
def test_sketch_is_the_released_projection(length, tokens, positions, dims):
    logits = normal(2, positions, tokens)
    sketch = LogitSketch(length, tokens, length_dim=dims[0], vocab_dim=dims[1], seed=3)
    full = released(logits, sketch)
    scale = np.abs(full).max()
    np.testing.assert_allclose(sketch.project(logits), full, atol=1e-12 * scale)
    np.testing.assert_allclose(sketch.project(logits.astype(np.float32)), full, atol=2e-6 * scale)
    units = LogitSketch(length, tokens, length_dim=dims[0], vocab_dim=dims[1], seed=3, orthonormal=True)
    np.testing.assert_allclose(units.project(logits) * alpha_factor(length, tokens), full, atol=1e-12 * scale)


def test_cosines_are_exact_for_large_vocabularies():
    tokens = 152_064
    index = np.array([1, 77_777, 152_063])
    sketch = LogitSketch.from_parts([1], np.ones(tokens, int), [0], index)
    token = 151_913
    logits = np.zeros((1, 1, tokens), np.float32)
    logits[0, 0, token] = 1
    waves = [math.cos(2 * math.pi * (int(k) * token % tokens) / tokens) for k in index]
    np.testing.assert_allclose(sketch.project(logits)[0] / math.sqrt(tokens / 3), waves, atol=3e-7)


def test_sketch_is_linear_and_not_blind_to_order():
    sketch, (x, y) = LogitSketch(16, 60, seed=1), normal(2, 1, 12, 60)
    both = sketch.project(3 * x - 2 * y)
    np.testing.assert_allclose(both, 3 * sketch.project(x) - 2 * sketch.project(y), atol=1e-9)
    buffer, tripled = MemoryBuffer(4, sketch.dim), MemoryBuffer(4, sketch.dim)
    buffer.push(sketch.project(y))
    tripled.push(sketch.project(3 * y))
    near, far = buffer.mean_distance(sketch.project(x)), tripled.mean_distance(sketch.project(3 * x))
    np.testing.assert_allclose(far, 3 * near)
    assert not np.allclose(sketch.project(x[:, ::-1]), sketch.project(x), rtol=0.1)
    assert not np.allclose(sketch.project(x[..., ::-1]), sketch.project(x), rtol=0.1)


def test_zero_rows_at_the_end_change_no_sketch():
    sketch, logits = LogitSketch(16, 60), normal(1, 5, 60)
    longer = np.concatenate([logits, np.zeros((1, 11, 60))], axis=1)
    np.testing.assert_allclose(sketch.project(longer), sketch.project(logits), atol=1e-10)


def test_scale_law():
    length, tokens = 8, 12
    logits = normal(1, length, tokens)
    draws = [LogitSketch(length, tokens, length_dim=16, vocab_dim=16, seed=seed).project(logits) for seed in range(600)]
    squares = np.square(np.concatenate(draws)).sum(1)
    halves = [np.where(2 * np.arange(n) % n == 0, 1, 0.5) for n in (length, tokens)]
    law = length * tokens * np.einsum("i,j,ij->", *halves, logits[0] ** 2)
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - law) < 4 * error and error < 0.05 * law
    assert alpha_factor(512, 152_064) == pytest.approx(4411.8, abs=0.05)


def test_orthonormal_with_its_alpha_ranks_as_released(worked):
    samples = worked[0]
    released_way, units = LogitSketch(6, 4, seed=2), LogitSketch(6, 4, seed=2, orthonormal=True)
    totals = []
    for sketch, alpha in ((released_way, 0.01), (units, 0.01 * alpha_factor(6, 4))):
        buffer = MemoryBuffer(3, sketch.dim)
        buffer.push(sketch.project(samples[:1]))
        totals.append(utility_diversity(nuclear_norm(samples), buffer.mean_distance(sketch.project(samples)), alpha))
    np.testing.assert_allclose(*totals)


def test_the_same_seed_is_the_same_sketch():
    parts = ("length_signs", "vocab_signs", "length_index", "vocab_index")
    one_, same, other = LogitSketch(32, 500, seed=7), LogitSketch(32, 500, seed=7), LogitSketch(32, 500, seed=8)
    assert all(np.array_equal(getattr(one_, part), getattr(same, part)) for part in parts)
    assert not any(np.array_equal(getattr(one_, part), getattr(other, part)) for part in parts)
    assert (one_.max_length, one_.vocab_size, one_.dim) == (32, 500, 1024)
    assert len(np.unique(LogitSketch(4, 4).length_index)) <= 4  # drawn with replacement: 8 of 4
    again = LogitSketch.from_parts(*(getattr(one_, part) for part in parts))
    logits = normal(2, 30, 500)
    assert np.array_equal(again.project(logits), one_.project(logits))
    assert np.array_equal(one_.project(torch.from_numpy(logits)).numpy(), one_.project(logits))


def test_bad_sketches_are_told():
    sketch = LogitSketch(8, 20)
    with pytest.raises(ValueError, match="9 positions; the sketch was made for at most 8"):
        sketch.project(np.zeros((1, 9, 20)))
    with pytest.raises(ValueError, match="a vocabulary of 21; the sketch was made for 20"):
        sketch.project(np.zeros((1, 8, 21)))
    for name in ("max_length", "vocab_size", "length_dim", "vocab_dim"):
        with pytest.raises(ValueError, match=f"`{name}` is 0; it must be an integer of at least 1"):
            LogitSketch(**{"max_length": 8, "vocab_size": 20} | {name: 0})
    with pytest.raises(ValueError, match="`seed` is -1"):
        LogitSketch(8, 20, seed=-1)
    for parts, message in (
        (([1, 0], [1], [0], [0]), "`length_signs` must be one row of 1 and -1"),
        (([1], [[1]], [0], [0]), "`vocab_signs`"),
        (([1], [1], [1], [0]), r"`length_index` must be one row of integers in \[0, 1\)"),
        (([1], [1], [0], []), "`vocab_index`"),
    ):
        with pytest.raises(ValueError, match=message):
            LogitSketch.from_parts(*parts)


# The buffer, the total, the picks


def test_golden_micro_batches(worked):
    samples, sketch = worked
    z, intra, buffer = sketch.project(samples), nuclear_norm(samples), MemoryBuffer(1024, 4)
    np.testing.assert_array_equal(buffer.mean_distance(z), [0, 0, 0])
    buffer.push(z[:1])
    inter = buffer.mean_distance(z)
    np.testing.assert_allclose(inter, [0, 4, 16], atol=1e-12)
    totals = utility_diversity(intra, inter, 0.1)
    np.testing.assert_allclose(totals, [2.0, 2.4, 5.6], atol=1e-12)
    picks = top_k(totals, 1)
    assert picks.tolist() == [2] and picks.dtype == np.int64
    buffer.push(z[picks])
    assert len(buffer) == 2
    np.testing.assert_allclose(buffer.mean_distance(z), [8, 10.246211251235323, 8], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 6), st.integers(0, 2**32))
def test_buffer_is_a_queue(pushes, capacity, seed):
    rng = np.random.default_rng(seed)
    buffer, queue = MemoryBuffer(capacity, 3), np.zeros((0, 3))
    for count in pushes:
        rows = rng.standard_normal((count, 3))
        buffer.push(rows)
        queue = np.concatenate([queue, rows])[-capacity:]
        z = rng.standard_normal((4, 3))
        wanted = np.linalg.norm(z[:, None] - queue, axis=-1).mean(1) if len(queue) else np.zeros(4)
        assert len(buffer) == len(queue)
        np.testing.assert_allclose(buffer.mean_distance(z), wanted, rtol=1e-9)
        if len(queue):  # the order of a queue does not count
            other = MemoryBuffer(capacity, 3)
            other.push(rng.permutation(queue))
            np.testing.assert_allclose(other.mean_distance(z), wanted, rtol=1e-9)


def test_distances_do_not_cancel():
    base = normal(1, 64) * 1e6
    kept = np.repeat(base, 5, 0)
    for dtype in (np.float64, np.float32):
        buffer = MemoryBuffer(5, 64)
        buffer.push(kept.astype(dtype))
        step = np.zeros((1, 64))
        step[0, 3] = 0.5
        near = (base + step).astype(dtype)
        wanted = np.linalg.norm(near.astype(np.float64) - base.astype(dtype))
        assert buffer.mean_distance(base.astype(dtype))[0] == 0
        assert buffer.mean_distance(near)[0] == pytest.approx(wanted, rel=1e-6) and wanted > 0.4
    huge = MemoryBuffer(2, 4)
    huge.push(np.full((1, 4), 1e30, np.float32))
    assert huge.mean_distance(np.full((1, 4), -1e30, np.float32))[0] == pytest.approx(4e30)


def test_many_candidates_are_taken_in_parts(monkeypatch):
    z, kept = normal(37, 6), normal(9, 6, seed=1)
    buffer = MemoryBuffer(9, 6)
    buffer.push(kept)
    monkeypatch.setattr("tasks.score.uds._ROWS", 10)
    np.testing.assert_allclose(buffer.mean_distance(z), np.linalg.norm(z[:, None] - kept, axis=-1).mean(1))


def test_vectors_that_are_not_finite_are_not_kept():
    buffer = MemoryBuffer(4, 2)
    buffer.push(np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 0.0]]))
    assert len(buffer) == 1
    distances = buffer.mean_distance(np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 1.0]]))
    assert distances[0] == 0 and not np.isfinite(distances[1:]).any()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_goes_on_where_it_was(tmp_path, kind, dtype):
    for pushed in (0, 3, 8):
        buffer, z = MemoryBuffer(5, 4), normal(6, 4).astype(dtype)
        buffer.push(normal(pushed, 4, seed=1).astype(dtype))
        url = str(tmp_path / f"{pushed}.npz")
        states.save(url, buffer.state_dict())
        state = states.load(url)
        if kind == "torch":
            state = {name: torch.as_tensor(array) for name, array in state.items()}
        resumed = MemoryBuffer(5, 4)
        resumed.push(z)  # what it held before is gone
        resumed.load_state_dict(state)
        for step in range(4):
            assert np.array_equal(resumed.mean_distance(z), buffer.mean_distance(z))
            for one_ in (resumed, buffer):
                one_.push(z[step : step + 2])
        assert states.dump(resumed.state_dict()) == states.dump(buffer.state_dict())


def test_a_state_is_a_copy():
    buffer = MemoryBuffer(2, 1)
    buffer.push(np.ones((1, 1)))
    state = buffer.state_dict()
    buffer.push(np.full((2, 1), 9.0))
    assert state["vectors"].tolist() == [[1]]


def test_bad_buffers_are_told():
    buffer = MemoryBuffer(3, 4)
    for call in (buffer.push, buffer.mean_distance):
        with pytest.raises(ValueError, match="`z` has vectors of 5 numbers; the buffer keeps those of 4"):
            call(np.zeros((2, 5)))
        with pytest.raises(ValueError, match="2 dimensions"):
            call(np.zeros(4))
    for capacity, dim, wrong in ((2, 4, "2 vectors of 4"), (3, 5, "3 vectors of 5")):
        with pytest.raises(ValueError, match=f"the state is of a buffer of {wrong}"):
            buffer.load_state_dict(MemoryBuffer(capacity, dim).state_dict())
    with pytest.raises(ValueError, match="none can be so"):
        buffer.load_state_dict(buffer.state_dict() | {"pointer": np.array(2)})
    for name in ("capacity", "dim"):
        with pytest.raises(ValueError, match=f"`{name}` is 0"):
            MemoryBuffer(**{"capacity": 1, "dim": 1} | {name: 0})


def test_an_empty_queue_or_no_alpha_leaves_the_norm_alone():
    samples = normal(6, 5, 9)
    sketch, intra = LogitSketch(5, 9), nuclear_norm(samples)
    z, buffer = sketch.project(samples), MemoryBuffer(8, sketch.dim)
    totals = utility_diversity(intra, buffer.mean_distance(z), 1.5e-3)
    assert np.array_equal(top_k(totals, 6), np.argsort(-intra, kind="stable"))
    buffer.push(z)
    for inter in (buffer.mean_distance(z), np.full(6, np.nan)):
        assert np.array_equal(utility_diversity(intra, inter, 0), intra)
    with pytest.raises(ValueError, match="`inter` has 2 scores; it must have as many as `intra`, 6"):
        utility_diversity(intra, np.zeros(2), 1)


def test_duplicates_have_equal_scores_and_both_are_picked():
    samples = normal(4, 6, 11).astype(np.float32)
    samples[3] = samples[1] = 5 * samples[1]
    sketch = LogitSketch(6, 11)
    z, buffer = sketch.project(samples), MemoryBuffer(8, sketch.dim)
    buffer.push(z[:1])
    totals = utility_diversity(nuclear_norm(samples), buffer.mean_distance(z), 1e-3)
    assert totals[1] == totals[3] and top_k(totals, 2).tolist() == [1, 3]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(-3, 3).map(float), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=12),
    st.integers(1, 15),
)
def test_top_k_by_brute_force(scores, k):
    order = sorted(
        range(len(scores)),
        key=lambda i: (not math.isfinite(scores[i]), -scores[i] if math.isfinite(scores[i]) else 0, i),
    )
    for dtype in (np.float32, np.float64):
        found = top_k(np.array(scores, dtype), k)
        assert found.tolist() == order[:k] and found.dtype == np.int64
    assert top_k(torch.tensor(scores), k).tolist() == order[:k]


def test_k_is_clamped_but_not_nothing():
    assert top_k(np.array([1.0, 3.0, 2.0]), 9).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="`k` is 0; it must be an integer of at least 1"):
        top_k(np.zeros(3), 0)


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    sketch = LogitSketch(64, 700)
    for name, matrix in hard().items():
        logits = torch.from_numpy(matrix).float().cuda()[None]
        norm = nuclear_norm(logits)
        assert norm.is_cuda and float(norm) == pytest.approx(exact(logits[0].cpu().numpy()), rel=1e-4, abs=1e-43), name
        if logits.shape[1] <= 64 and logits.shape[2] == 700 and logits.abs().max() < 1e20:
            z, wanted = sketch.project(logits).cpu(), sketch.project(logits.cpu())
            np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=2e-6 * float(wanted.abs().max()))
    buffer, z = MemoryBuffer(4, 8), torch.from_numpy(normal(6, 8)).cuda()
    buffer.push(z)
    distances = buffer.mean_distance(z)
    assert distances.is_cuda and top_k(distances, 2).is_cuda
    np.testing.assert_allclose(distances.cpu(), (z[:, None] - z[2:]).norm(dim=-1).mean(1).cpu())
