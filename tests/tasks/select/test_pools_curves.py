"""Utilities and half-lives by experiment: what is sampled, how a proxy is trained and measured, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import ColumnError, ConfigError, InputError, RunFailed
from configs.methods.pools import Curves
from configs.methods.pools import Pools as Config
from storage.states import Checkpoint, dump
from tasks.mix import course
from tasks.select.pool_buckets import edges
from tasks.select.pool_curves import Measuring, fitted, measured, refuse_unsound, remarks
from tasks.select.pool_law import predicted_error
from tasks.select.pools import Pools

ROWS, BATCH = 320, 16
SHAPE = {"kind": "language", "max_length": 12, "vocabulary": 300, "width": 16, "layers": 1, "heads": 2}


class ByLaw:
    """A proxy whose losses are those of the law, of the one group that it is trained on."""

    def __init__(self, laws, total=1, broken=None):
        self.laws, self.groups, self.step, self.total, self.broken = laws, len(laws), 0, total, broken
        self.group, self.trained = -1, []

    def fresh(self, total):
        made = ByLaw(self.laws, total, self.broken)
        made.trained = self.trained
        return made

    def train(self, proportions, steps, *, composed=False):
        assert sorted(proportions)[-1] == 1 and proportions.sum() == 1
        self.group = int(np.argmax(proportions))
        self.step += steps
        self.trained.append((self.group, self.step))

    def losses(self):
        if self.step == 0:
            return np.full(self.groups, 6.0)
        if self.broken == (self.group, self.step // 40):
            return np.full(self.groups, np.nan)
        b, tau = self.laws[self.group]
        error = predicted_error(self.step * BATCH, 2e3, b, tau, 0.2, ROWS)
        return 6.0 * error + np.linspace(-0.1, 0.1, self.groups)  # groups differ; their mean counts

    def state(self):
        return {"step": np.int64(self.step), "group": np.int64(self.group)}

    def restore(self, state):
        self.step, self.group = int(state["step"]), int(state["group"])


LAWS = [(-0.3, 2.0), (-0.2, 4.0), (-0.1, 6.0)]


def test_curves_are_measured_after_each_other_pass_and_fitted_back(tmp_path):
    proxy = ByLaw(LAWS)
    samples, errors = measured(proxy, ROWS, BATCH, 10, Checkpoint(f"{tmp_path}/c.npz"))
    assert samples.tolist() == [ROWS * n for n in (2, 4, 6, 8, 10)]
    assert errors == pytest.approx(
        np.array([[predicted_error(n, 2e3, *law, 0.2, ROWS) for n in samples] for law in LAWS])
    )
    assert {group: max(step for g, step in proxy.trained if g == group) for group in range(3)} == dict.fromkeys(
        range(3), 200
    )
    config = Config(buckets=3, samples_seen=1000, curves=Curves(), scale=2e3, floor=0.2)
    fits = fitted(samples, errors, ROWS, config)
    assert np.array([one[:2] for one in fits.buckets]) == pytest.approx(np.array(LAWS), rel=1e-3)
    free = fitted(samples, errors, ROWS, config.model_copy(update={"scale": None, "floor": None}))
    assert np.mean([one.loss for one in free.buckets]) < 1e-5  # scale and floor are hard to tell apart; curves are met
    order = np.argsort([one.exponent for one in free.buckets])
    assert order.tolist() == [0, 1, 2]


def test_an_odd_number_of_passes_is_measured_at_its_end(tmp_path):
    samples, _ = measured(ByLaw(LAWS), ROWS, BATCH, 5, Checkpoint(f"{tmp_path}/c.npz"))
    assert samples.tolist() == [ROWS * n for n in (2, 4, 5)]


def test_training_that_broke_off_goes_on_to_the_same_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "SAVE_SECONDS", 0)
    monkeypatch.setattr(course, "SAVE_SHARE", float("inf"))
    whole = measured(ByLaw(LAWS), ROWS, BATCH, 6, Checkpoint(f"{tmp_path}/whole.npz"))
    train, steps = ByLaw.train, []

    def broken(self, *args, **kwargs):
        if len(steps) == 20:
            raise KeyboardInterrupt
        train(self, *args, **kwargs)
        steps.append((self.group, self.step))

    checkpoint = Checkpoint(f"{tmp_path}/broken.npz")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ByLaw, "train", broken)
        measured(ByLaw(LAWS), ROWS, BATCH, 6, checkpoint)
    proxy = ByLaw(LAWS)
    again = measured(proxy, ROWS, BATCH, 6, checkpoint)
    assert steps[-1][0] == 1 and proxy.trained[0][0] == 1  # the second bucket; the first is not trained again
    assert proxy.trained[0][1] > steps[-1][1]
    assert all(np.array_equal(a, b) for a, b in zip(whole, again))


def test_a_training_that_diverges_names_its_bucket(tmp_path):
    with pytest.raises(RunFailed, match="training on bucket 2 alone: the proxy diverged"):
        measured(ByLaw(LAWS, broken=(1, 2)), ROWS, BATCH, 6, Checkpoint(f"{tmp_path}/c.npz"))


@pytest.mark.parametrize("curve", [[0.999, 0.995, 0.993], [1.2, 1.3, 1.5], [0.9, np.nan, 0.8]])
def test_a_flat_curve_is_refused(curve):
    refuse_unsound(np.array([[0.9, 0.8, 0.7]]))
    with pytest.raises(RunFailed, match="curve of bucket 2 is flat"):
        refuse_unsound(np.array([[0.9, 0.8, 0.7], curve]))


def test_a_curve_that_rises_again_is_told_of(tmp_path):
    samples = ROWS * np.array([2.0, 4, 6])
    errors = np.array([[0.8, 0.7, 0.65], [0.8, 0.78, 0.9]])
    fits = fitted(samples, errors, ROWS, Config(buckets=2, samples_seen=9, curves=Curves()))
    from tasks.select.pool_curves import CurveLaw

    law = CurveLaw(fits.scale, fits.floor, *np.array([one[:2] for one in fits.buckets]).T, samples, errors)
    told = remarks(law, ROWS)
    assert any("the error of bucket 2 rises again" in one for one in told)
    assert any("bucket" in one and "end of the grid" in one for one in told)


# --------------------------------------------------------------------------------------------------- rows of real text
def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    words = np.array("oak elm ash fir yew bay fig".split())
    lines = [" ".join(words[rng.integers(0, 7, 6)]) for _ in range(count)]
    ids = np.arange(count) + 1000 * seed
    packed = np.column_stack([ids, ids * 3]).astype("<u8").view("u1").reshape(count, 16)
    uid = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(packed.tobytes())])
    return pa.table({"s": pa.array(rng.random(count), pa.float32()), "uid": uid, "text": lines})


def select(**curves):
    given = {"proxy": SHAPE, "passes": 4, "train_rows": 32, "validation_rows": 20, "batch_size": 8, "device": "cpu"}
    return Pools(
        Config(score="s", buckets=2, samples_seen=500, curves={**given, "learning_rate": 0.01, **curves}), seed=0
    )


def test_the_sample_is_bounded_equal_and_the_same_for_any_cut(tmp_path):
    rows, method = texts(600), select()
    measuring = method._measuring
    found = []
    for cuts in ([600], [200, 400], [1, 599]):
        ends = np.cumsum(cuts)
        summaries = [method.summarise(rows.slice(e - c, c)) for c, e in zip(cuts, ends)]
        assert all(one["sampled"].to_numpy().sum() <= measuring._wanted(2) for one in summaries)
        lowest = edges([one["key"].to_numpy() for one in summaries], 600, 2)
        train, held = measuring._divided(measuring._gathered(summaries, lowest))
        assert [part.num_rows for part in train] == [32, 32] and [part.num_rows for part in held] == [10, 10]
        sets = [set(part["text"].to_pylist()) for part in (*train, *held)]
        found.append([part.to_pydict() for part in (*train, *held)])
        assert all(sets)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("unreadable", [0, 3])
def test_copies_with_other_texts_and_unreadable_rows_are_the_same_for_any_cut_and_order(unreadable):
    """Every row is there twice, with the same key and another text, or none."""
    rows, method = texts(1200), select()
    assert method._measuring._wanted(2) < 1200
    other = [
        f"another {text}" if not unreadable or i % unreadable else None
        for i, text in enumerate(rows["text"].to_pylist())
    ]
    rows = pa.concat_tables([rows, rows.set_column(2, "text", pa.array(other, pa.string()))])
    if unreadable:
        first = [text if i % 2 else None for i, text in enumerate(rows["text"].to_pylist())]
        rows = rows.set_column(2, "text", pa.array(first, pa.string()))
    found = []
    for cuts in ([2400], [1200, 1200], [5, 300, 1500, 595]):
        ends = np.cumsum(cuts)
        summaries = [method.summarise(rows.slice(e - c, c)) for c, e in zip(cuts, ends)]
        lowest = edges([one["key"].to_numpy() for one in summaries], 2400, 2)
        for parts in (summaries, summaries[::-1]):
            found.append([part.to_pydict() for part in method._measuring._gathered(parts, lowest)])
    assert all(one == found[0] for one in found) and len(found[0][0]["text"]) > 40


def test_a_real_proxy_measures_and_fits(tmp_path):
    rows, method = texts(300), select()
    summaries = [method.summarise(rows.slice(0, 140)), method.summarise(rows.slice(140))]
    lines = []
    state = method.fit(summaries, Checkpoint(f"{tmp_path}/c.npz", lines.append))
    assert state["measured_errors"].shape == (2, 2) and (state["measured_errors"] < 1).all()
    assert (state["utilities"] < 0).all() and len(lines) >= 2
    again = method.fit(summaries, Checkpoint(f"{tmp_path}/d.npz"))
    assert dump(again) == dump(state)
    assert "utilities and half-lives are fitted to 2 errors on 32 rows" in method.told(state, {})
    assert np.isin(state["kept"], [True, False]).all() and 1 <= int(state["best"]) <= 2


@pytest.mark.gpu
def test_a_proxy_on_cuda_measures_and_fits(tmp_path):
    method = select(device="cuda")
    state = method.fit([method.summarise(texts(300))], Checkpoint(f"{tmp_path}/c.npz"))
    assert method.depends_on()["device"] == "cuda" and (state["measured_errors"] < 1).all()


def test_rows_of_a_file_are_what_errors_are_measured_on(tmp_path):
    pq.write_table(texts(30, seed=5), tmp_path / "held.parquet")
    method = select(validation=f"{tmp_path}/held.parquet")
    method.check()
    given = method._measuring._given(f"{tmp_path}/held.parquet")
    assert given["text"].to_pylist() == texts(30, seed=5)["text"].to_pylist()[:20]
    state = method.fit([method.summarise(texts(200))], Checkpoint(f"{tmp_path}/c.npz"))
    assert np.isfinite(state["measured_errors"]).all()
    before = method.depends_on()
    moved = tmp_path / "moved.parquet"
    moved.write_bytes((tmp_path / "held.parquet").read_bytes())
    other = select(validation=str(moved))
    assert other.depends_on() == before and other._config.output_fields() == method._config.output_fields()
    assert method._config.output_fields() != select(validation=str(moved), seed=1)._config.output_fields()
    pq.write_table(texts(31, seed=5), tmp_path / "held.parquet")
    assert method.depends_on() != before


def test_files_that_will_not_do_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        select(validation=f"{tmp_path}/none.parquet").check()
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ColumnError, match=r"has no column 'text', which `curves.proxy` reads; it has words"):
        Measuring(Curves())._given(f"{tmp_path}/a.parquet")
    pq.write_table(pa.table({"text": pa.array([None, ""], pa.string())}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no row that the proxy can read"):
        Measuring(Curves())._given(f"{tmp_path}/b.parquet")


def test_a_bucket_without_readable_rows_is_named(tmp_path):
    rows = texts(100)
    empty = pa.array([None if s < 0.5 else t for s, t in zip(rows["s"].to_pylist(), rows["text"].to_pylist())])
    method = select()
    with pytest.raises(ConfigError, match="bucket 2 of 2 has .* distinct rows"):
        method.fit([method.summarise(rows.set_column(2, "text", empty))], Checkpoint(f"{tmp_path}/c.npz"))


def test_keys_are_read_without_the_texts_beside_them(tmp_path):
    class Read(list):
        """Summaries that note which columns a pass asks for."""

        asked = []

        def only(self, *columns):
            self.asked.append(columns)
            return [one.select(columns) for one in self]

    rows, method = texts(200), select()
    summaries = [method.summarise(rows)]
    state = method.fit(Read(summaries), Checkpoint(f"{tmp_path}/c.npz"))
    assert Read.asked == [("key",)]
    assert dump(state) == dump(method.fit(summaries, Checkpoint(f"{tmp_path}/d.npz")))
