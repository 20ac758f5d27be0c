"""A proxy in training on groups: what it learns, what it draws, its gradients, and that it goes on to the same bytes."""

import subprocess
import sys
import weakref
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mix_samples import built, config, mixed, pair_proxy, text_proxy

from storage.states import Checkpoint, dump
from tasks.mix import group_proxy, group_streams
from tasks.mix.group_streams import Streams, composed_counts, drawn_counts
from tasks.score import proxy_training

UNIFORM = np.full(3, 1 / 3)
MAKERS = {"texts": text_proxy, "pairs": pair_proxy}


@pytest.fixture(scope="module")
def texts():
    return text_proxy()


@pytest.fixture(scope="module")
def pairs():
    return pair_proxy()


@pytest.fixture(params=["texts", "pairs"])
def proxy(request, texts, pairs):
    return {"texts": texts, "pairs": pairs}[request.param].fresh(40)


def placed(proxy, vector):
    """A copy of the proxy's weights as one float64 vector, moved by `vector` and put back as float32."""
    state, at = proxy.state(), 0
    for name in proxy.weights():
        value = state[f"weight/{name}"]
        state[f"weight/{name}"] = (value + vector[at : at + value.size].reshape(value.shape)).astype(np.float32)
        at += value.size
    other = proxy.fresh(proxy.total)
    other.restore(state)
    return other


# ------------------------------------------------------------------------------------------------------------ learning
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_losses_fall_and_those_of_the_group_that_is_learned_the_most(kind, seed):
    proxy = MAKERS[kind](proxy_seed=seed)
    before = proxy.losses()
    assert before.dtype == np.float64 and before.shape == (3,)
    proxy.train(UNIFORM, 30)
    assert (proxy.losses() < before).all()
    for group in range(3):
        alone = proxy.fresh(30)
        assert np.array_equal(alone.losses(), before)
        assert alone.train(np.eye(3)[group], 30).tolist() == np.eye(3)[group].tolist()
        assert np.argmax(before - alone.losses()) == group


def test_the_rate_rises_falls_to_nothing_and_stays_there(pairs):
    proxy, rates = pairs.fresh(100), []
    for _ in range(102):
        rates.append(proxy.rate())
        proxy.train(UNIFORM, 1)
    assert np.allclose(rates[:3], np.array([1, 2, 3]) / 3 * 1e-2) and np.all(np.diff(rates[3:]) <= 0)
    assert rates[99] < 1e-4 and rates[100] == rates[101] == 0 and proxy.step == 102


# ---------------------------------------------------------------------------------------------------------- same bytes
def test_ten_steps_are_four_and_six_more(proxy, tmp_path):
    whole = proxy.fresh(40)
    assert dump(whole.state()) == dump(proxy.state())
    whole.train(UNIFORM, 10)
    proxy.train(UNIFORM, 4)
    checkpoint = Checkpoint(str(tmp_path / "state.npz"))
    checkpoint.save(proxy.state())
    proxy.train(UNIFORM, 3)
    later = proxy.fresh(40)
    later.restore(checkpoint.load())
    later.train(UNIFORM, 6)
    assert dump(later.state()) == dump(whole.state())
    proxy.restore(checkpoint.load())  # what was done in between is forgotten
    proxy.train(UNIFORM, 6)
    assert dump(proxy.state()) == dump(whole.state())
    later.restore(whole.fresh(40).state())
    assert dump(later.state()) == dump(whole.fresh(40).state())


def test_steps_with_gradients_and_composed_batches_go_on_too(proxy):
    def work(one):
        found = one.gradients(UNIFORM)
        one.apply(found.vectors.mean(0) + one.validation_gradient())
        one.train(np.array([0.5, 0.25, 0.25]), 2, composed=True)

    work(proxy)
    saved = proxy.state()
    kept = dump(saved)
    work(proxy)
    again = proxy.fresh(40)
    again.restore(saved)
    work(again)
    assert dump(again.state()) == dump(proxy.state()) and dump(saved) == kept


def test_the_same_weights_for_any_number_of_threads(monkeypatch):
    from tasks.embed.encoder import single_threads

    def trained():
        proxy = text_proxy()
        proxy.train(UNIFORM, 5)
        found = proxy.gradients(UNIFORM)
        return dump(proxy.state() | {"vectors": found.vectors.numpy(), "losses": proxy.losses()})

    whole = trained()
    for count in (1, 3):
        with single_threads(count) as pool, monkeypatch.context() as patch:
            patch.setattr(proxy_training, "worker_threads", lambda count, pool=pool: pool)
            assert trained() == whole


def test_another_seed_is_another_model_and_other_rows():
    one, other = pair_proxy(), pair_proxy(proxy_seed=1)
    assert not np.array_equal(one.weights()["image_embedding"], other.weights()["image_embedding"])
    assert not np.array_equal(one.train(UNIFORM, 1), other.train(UNIFORM, 1))


# -------------------------------------------------------------------------------------------------------------- batches
def test_composed_batches_have_whole_numbers_and_the_mixture_that_is_told(proxy, monkeypatch):
    drawn = []
    take = Streams.take
    monkeypatch.setattr(Streams, "take", lambda self, counts: drawn.append(counts) or take(self, counts))
    shares = np.array([0.5, 0.3, 0.2])  # 6, 3.6, 2.4 of 12
    told = proxy.train(shares, 5, composed=True)
    assert all(counts.sum() == 12 and counts[0] == 6 for counts in drawn)
    assert np.array_equal(np.sum(drawn, 0), [30, 18, 12]) and np.array_equal(told, np.array([30, 18, 12]) / 60)
    assert {tuple(c) for c in drawn} == {(6, 4, 2), (6, 3, 3)}
    told = proxy.train(shares, 1, composed=True)  # nothing is carried over from one call to the next
    assert told.tolist() == [0.5, 4 / 12, 2 / 12]


@given(
    weights=st.lists(st.integers(0, 20), min_size=1, max_size=9).filter(any),
    rows=st.integers(2, 40),
    steps=st.integers(1, 30),
)
def test_what_a_group_is_owed_is_carried_over(weights, rows, steps):
    shares = np.array(weights) / np.sum(weights)
    total, owed = np.zeros(len(shares), np.int64), np.zeros(len(shares))
    for done in range(1, steps + 1):
        counts, owed = composed_counts(shares, rows, owed)
        total += counts
        assert counts.sum() == rows and (counts >= 0).all() and (counts[shares == 0] == 0).all()
        assert np.allclose(owed, done * rows * shares - total)
        assert np.abs(owed).max() < len(shares)
    whole = rows * shares
    if np.allclose(whole, np.round(whole)):
        assert np.array_equal(total, np.round(whole).astype(int) * steps)


def test_random_batches_have_the_shares_on_average():
    shares = np.array([0.6, 0.1, 0.3, 0])
    counts = np.array([drawn_counts(shares, 20, [0, 1, step]) for step in range(2000)])
    assert (counts.sum(1) == 20).all() and np.allclose(counts.mean(0) / 20, shares, atol=0.01)
    assert np.allclose(counts.var(0), 20 * shares * (1 - shares), rtol=0.15)


def test_every_epoch_of_a_group_is_a_permutation_of_its_own():
    rows = [np.array([5, 7, 9]), np.arange(20, 40)]
    streams = Streams(rows, [3])
    taken = np.concatenate([streams.take(np.array([5, 2]))[0] for _ in range(6)])
    epochs = taken.reshape(10, 3)
    assert (np.sort(epochs, 1) == rows[0]).all() and len({tuple(e) for e in epochs.tolist()}) > 3
    assert streams.places.tolist() == [30, 12]
    later = Streams(rows, [3])
    later.places = np.array([29, 0])
    assert later.take(np.array([1, 0]))[0] == taken[-1]
    assert [len(part) for part in later.take(np.array([0, 0]))] == [0, 0]


def test_a_group_with_fewer_rows_than_a_batch_is_drawn_again():
    rows, labels = mixed()
    few = np.array([name != "names" or i % 12 == 0 for i, name in enumerate(labels.to_pylist())])
    proxy = built(config(), rows.filter(few), labels.filter(few)).proxy
    before = proxy.losses()
    proxy.train(np.array([0, 1.0, 0]), 30, composed=True)
    assert proxy.losses()[1] < before[1] and np.isfinite(proxy.losses()).all()


# ------------------------------------------------------------------------------------------------------------ gradients
def test_gradients_are_slopes_of_the_losses(proxy):
    proxy.train(UNIFORM, 5)
    saved = proxy.state()
    found = proxy.gradients(UNIFORM)
    assert found.vectors.shape == (3, sum(w.size for w in proxy.weights().values())) and proxy.step == 5
    assert np.isnan(found.reference).all()
    slopes = found.vectors.numpy()
    for group in range(3):
        along = slopes[group] / np.linalg.norm(slopes[group])
        ends = []
        for distance in (-0.02, 0.02):
            moved = placed(proxy, distance * along)
            moved.restore(saved | {k: v for k, v in moved.state().items() if k.startswith("weight/")})
            ends.append(moved.gradients(UNIFORM).losses)
        # the slopes of all three losses along the gradient of one
        assert np.allclose((ends[1] - ends[0]) / 0.04, slopes @ along, rtol=0.03, atol=0.02)


def test_the_validation_gradient_is_the_slope_of_the_mean_of_the_losses(proxy):
    proxy.train(UNIFORM, 5)
    proxy._config = proxy._config.model_copy(update={"batch_size": 3 * len(proxy._corpus.held[0])})  # all rows
    slope = proxy.validation_gradient().numpy()
    along = slope / np.linalg.norm(slope)
    ends = [placed(proxy, distance * along).losses().mean() for distance in (-0.02, 0.02)]
    assert np.isclose((ends[1] - ends[0]) / 0.04, np.linalg.norm(slope), rtol=0.02)


def test_a_step_by_the_groups_gradients_is_a_step_of_training(pairs):
    one, other = pairs.fresh(40), pairs.fresh(40)
    for _ in range(3):
        shares = one.train(UNIFORM, 1)
        found = other.gradients(UNIFORM)
        import torch

        other.apply((found.vectors * torch.from_numpy(shares[found.there]).float()[:, None]).sum(0))
    assert other.step == 3
    assert all(np.allclose(one.weights()[n], w, atol=1e-5) for n, w in other.weights().items())


def test_a_group_without_a_row_in_the_batch_has_no_loss(proxy):
    found = proxy.gradients(np.array([0.5, 0, 0.5]), proxy.weights())
    assert np.isnan(found.losses).tolist() == np.isnan(found.reference).tolist() == [False, True, False]
    assert found.there.tolist() == [0, 2] and len(found.vectors) == 2 and found.vectors.any(1).all()


@pytest.mark.parametrize("least", [1, 5])
def test_many_groups_hold_no_more_gradients_than_a_batch_or_what_runs_at_once(monkeypatch, least):
    """Gradients of pieces that are in memory together, where a batch of 12 rows meets 60 groups."""
    rows, _ = mixed(200)
    names = [f"group {n:02d}" for n in range(60)]
    proxy = built(config(train_rows=6, validation_rows=2), rows, pa.array([names[n % 60] for n in range(600)])).proxy
    alive, most, real = weakref.WeakSet(), [], group_proxy._gradient

    def watched(*args):
        found = real(*args)
        alive.add(found[1])
        most.append(len(alive))
        return found

    whole = proxy.state()
    slope = proxy.validation_gradient()
    singles = [proxy._gradients(partial(proxy._corpus.held_loss, proxy._weights), [[part]]) for part in _each(proxy)]
    assert np.allclose(slope, sum(next(one)[1] for one in singles) / 60, atol=1e-6)
    proxy.restore(whole)
    monkeypatch.setattr(group_proxy, "_gradient", watched)
    monkeypatch.setattr(group_proxy, "AT_ONCE", least)
    assert np.array_equal(proxy.validation_gradient(), slope) and len(most) == 60 and max(most) <= least + 2
    found = proxy.gradients(np.full(60, 1 / 60))
    assert len(found.vectors) == len(found.there) <= 12 and np.isnan(found.losses).sum() == 60 - len(found.there)


def _each(proxy):
    """The next validation rows of each of 60 groups, one each: those that the proxy has just drawn."""
    streams = Streams(proxy._corpus.held, [proxy._config.proxy_seed, group_proxy.VALIDATION])
    return streams.take(np.ones(60, np.int64))


def test_the_reference_is_measured_on_the_same_rows(proxy):
    start = proxy.weights()
    assert np.allclose(proxy.gradients(UNIFORM, start).reference, proxy.fresh(40).gradients(UNIFORM).losses)
    proxy.train(UNIFORM, 20)
    found = proxy.gradients(UNIFORM, start)
    assert (found.losses < found.reference).all()
    mine = proxy.gradients(UNIFORM, proxy.weights())
    assert np.allclose(mine.losses, mine.reference, atol=1e-6)


def test_a_gradient_is_clipped(proxy):
    import torch

    found = proxy.gradients(UNIFORM).vectors.mean(0)
    unit = found / found.norm()
    one, other, less = proxy.fresh(40), proxy.fresh(40), proxy.fresh(40)
    for step in range(2):  # Adam's first step does not depend on the gradient's length
        one.apply(unit * (1 if step else 0.5))
        other.apply(unit * (1e3 if step else 0.5))
        less.apply(unit * (0.1 if step else 0.5))
    assert all(np.allclose(one.weights()[n], w, atol=1e-6) for n, w in other.weights().items())
    assert not all(np.allclose(one.weights()[n], w, atol=1e-6) for n, w in less.weights().items())
    assert torch.isfinite(found).all()


# -------------------------------------------------------------------------------------------------------------- trouble
def test_a_model_that_has_diverged_says_so_by_its_losses(proxy):
    state = proxy.state()
    name = next(n for n in state if n.startswith("weight/"))
    proxy.restore(state | {name: np.full_like(state[name], np.nan)})
    assert np.isnan(proxy.losses()).all()
    proxy.train(UNIFORM, 2)
    assert not np.isfinite(proxy.losses()).any() and not np.isfinite(proxy.gradients(UNIFORM).losses).any()
    proxy.restore(state)
    assert np.isfinite(proxy.losses()).all()


@pytest.mark.parametrize("shares", [[0.5, 0.5], [1.5, -0.5, 0], [0.5, 0.5, 0.5], [np.nan, 0.5, 0.5]])
def test_shares_that_are_none_are_refused(pairs, shares):
    for ask in (lambda: pairs.train(np.array(shares), 1), lambda: pairs.gradients(np.array(shares))):
        with pytest.raises(ValueError, match=r"`proportions` is .*; it must be 3 numbers, none negative, with sum 1"):
            ask()


def test_numbers_that_are_none_are_refused(pairs):
    import torch

    with pytest.raises(ValueError, match="`steps` is 0; it must be at least 1"):
        pairs.train(UNIFORM, 0)
    with pytest.raises(ValueError, match="`total` is 0; it must be at least 1"):
        pairs.fresh(0)
    with pytest.raises(ValueError, match=r"`gradient` is \(2,\); it must be \(193,\)"):
        pairs.apply(torch.zeros(2))


def test_a_plan_loads_no_heavy_library():
    code = "import sys; import tasks.mix.samples; print([m for m in ('torch', 'tokenizers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert group_proxy.Streams is group_streams.Streams


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MAKERS)
def test_cuda_agrees_with_the_cpu_and_with_itself(kind):
    def trained(device):
        proxy = MAKERS[kind](device=device)
        proxy.train(UNIFORM, 10)
        found = proxy.gradients(UNIFORM, proxy.fresh(40).weights())
        proxy.apply(found.vectors.mean(0) + proxy.validation_gradient())
        assert found.vectors.device.type == device
        return proxy, found, dump(proxy.state() | {"losses": proxy.losses(), "vectors": found.vectors.cpu().numpy()})

    (here, told, _), (there, found, bytes_) = trained("cpu"), trained("cuda")
    assert np.allclose(here.losses(), there.losses(), atol=0.02) and trained("cuda")[2] == bytes_
    assert np.allclose(told.reference, found.reference, atol=1e-3) and np.allclose(told.losses, found.losses, atol=0.02)
    other = there.fresh(40)
    other.restore(there.state())
    there.train(UNIFORM, 2)
    other.train(UNIFORM, 2)
    assert dump(other.state()) == dump(there.state())
