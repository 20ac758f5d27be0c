"""Loss trajectories: the proxies learn, a row is measured by itself, training goes on where it broke off."""

import gc
import hashlib
import re
import weakref

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from configs.errors import ColumnError, ConfigError, ModelError
from configs.methods.logits import CausalLm
from configs.methods.proxies import LanguageProxy, PairProxy
from configs.methods.proxies import Trajectory as Config
from storage.packed import unpack
from storage.states import Checkpoint, dump
from tasks import load
from tasks.embed import vectors
from tasks.score import METHODS, given_lm, proxy_pairs, proxy_training
from tasks.score.trajectory import Trajectory

SMALL = {"max_length": 16, "vocabulary": 320, "width": 16, "layers": 1, "heads": 2}


def uids(n):
    return pa.array([hashlib.md5(str(i).encode()).digest() for i in range(n)], pa.binary(16))


def language(**over):
    proxy = LanguageProxy(**SMALL | {k: v for k, v in over.items() if k in LanguageProxy.model_fields})
    rest = {k: v for k, v in over.items() if k in Config.model_fields and k not in LanguageProxy.model_fields}
    return Config(
        **{"proxy": proxy, "checkpoints": 3, "epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "device": "cpu"}
        | rest
    )


def pairs(**over):
    return Config(
        **{"proxy": PairProxy(width=8), "checkpoints": 4, "epochs": 8, "batch_size": 16, "device": "cpu"} | over
    )


def sentences(n=160, seed=0):
    """Half of the texts repeat four words, half are of random letters."""
    rng = np.random.default_rng(seed)
    words = ["river", "stone", "cloud", "grass"]
    easy = [" ".join(words[j] for j in rng.integers(0, 4, 8)) for _ in range(n // 2)]
    hard = ["".join(chr(97 + j) for j in rng.integers(0, 26, 40)) for _ in range(n - n // 2)]
    return easy + hard


def text_rows(texts, **columns):
    return pa.table(
        {"row": np.arange(len(texts)), "text": pa.array(texts, pa.string()), "uid": uids(len(texts)), **columns}
    )


def pair_rows(n=200, dim=12, seed=0, broken=20):
    """Pairs that belong together, but for the first, whose texts are noise."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((n, dim))
    text = image[:, ::-1] + 0.1 * rng.standard_normal((n, dim))
    text[:broken] = rng.standard_normal((broken, dim))
    every = np.ones(n, bool)
    columns = {"image_embedding": vectors.pack(image, every), "text_embedding": vectors.pack(text, every)}
    return pa.table({"row": np.arange(n), **columns, "uid": uids(n)})


def fitted(config, *tables):
    method = Trajectory(config)
    return method.fit([method.summarise(table) for table in tables])


def measured(config, state, rows):
    """Trajectories, float32 (n, T), NaN for null."""
    result = Trajectory(config, state=state).run(rows)
    column = result.table["trajectory"]
    assert not result.failures and column.type == pa.binary(4 * config.checkpoints)
    return np.where(column.is_valid().to_numpy()[:, None], unpack(column, "<f4"), np.nan)


@pytest.fixture(scope="module")
def texts():
    rows = text_rows(sentences())
    return rows, fitted(language(), rows)


# ---------------------------------------------------------------------------------------------------------- language
def test_what_can_be_learned_is_learned_and_noise_is_not(texts):
    rows, state = texts
    losses = measured(language(), state, rows)
    assert losses.shape == (160, 3) and np.isfinite(losses).all()
    easy, hard = losses[:80].mean(0), losses[80:].mean(0)
    assert (np.diff(easy) < 0).all() and easy[-1] < hard[-1] - 0.3
    assert state["losses"].shape == (3,) and (np.diff(state["losses"]) < 0).all() and int(state["rows"]) == 160
    names = {name.split("/")[0] for name in state if "/" in name}
    assert names == {"00", "01", "02"} and hasattr(load(METHODS, language()), "fit")


def test_a_row_is_measured_by_itself(texts):
    rows, state = texts
    whole = measured(language(), state, rows)
    some = [3, 159, 80]
    assert np.allclose(measured(language(), state, rows.take(some)), whole[some], atol=1e-5)
    assert np.array_equal(measured(language(), state, rows), whole)


def test_the_loss_is_the_mean_over_the_tokens_of_the_response():
    import torch
    from tokenizers import Tokenizer

    from tasks.score.proxy_training import weights_at
    from tasks.score.small_lm import SmallLm

    prompts = [f"say {i % 7}" for i in range(48)]
    rows = text_rows(["-"] * 48, ask=prompts, answer=[f"it is {i % 7}" for i in range(48)])
    config = language(prompt="ask", response="answer", separator=" : ")
    assert set(Trajectory(config).needs) == {"ask", "answer", "uid"}
    assert Trajectory(config).input_columns == ("ask", "answer")
    state = fitted(config, rows)
    losses = measured(config, state, rows)
    tokenizer = Tokenizer.from_str(state["tokenizer"].tobytes().decode())
    end = tokenizer.get_vocab_size()
    model = SmallLm(config.proxy, end + 1)
    for row in (0, 5):
        head = [end, *tokenizer.encode(f"{prompts[row]} : ").ids]
        ids = [*head, *tokenizer.encode(f"it is {row % 7}").ids, end]
        at = torch.ones((1, len(ids) - 1), dtype=torch.bool)
        for t in range(3):
            logits = model.logits(weights_at(state, t, "cpu"), torch.tensor([ids[:-1]]), at)
            each = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            assert losses[row, t] == pytest.approx(float(each[len(head) - 1 :].mean()), abs=1e-5)


def test_the_model_sees_no_token_that_comes_later():
    import torch

    from tasks.score.small_lm import SmallLm

    model = SmallLm(LanguageProxy(**SMALL), 50)
    weights = {name: torch.from_numpy(value) for name, value in model.initial(0).items()}
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    at = torch.ones((2, 9), dtype=torch.bool)
    first = model.logits(weights, ids, at).view(2, 9, -1)
    ids[:, 5:] = 7
    again = model.logits(weights, ids, at).view(2, 9, -1)
    assert torch.allclose(first[:, :5], again[:, :5], atol=1e-6) and not torch.allclose(first[:, 5:], again[:, 5:])


def test_rows_without_a_response_have_no_trajectory():
    asks = ["short", None, "word " * 60, "short", "short", "short"]
    answers = ["fine", "also fine", "never read", "", None, "word " * 60]
    rows = text_rows(["-"] * 6, ask=pa.array(asks), answer=pa.array(answers).dictionary_encode())
    config = language(prompt="ask", response="answer")
    found = measured(config, fitted(config, rows), rows)
    assert np.isfinite(found).all(1).tolist() == [True, True, False, False, False, True]


def test_without_a_row_to_learn_from_nothing_is_measured():
    for rows in (text_rows([]), text_rows([None, ""])):
        state = fitted(language(), rows)
        assert dump(state) and int(state["rows"]) == 0
        assert np.isnan(measured(language(), state, rows)).all()
    config = language(prompt="ask", response="answer")
    rows = text_rows(["-"] * 3, ask=["word " * 60] * 3, answer=["x"] * 3)  # no response within `max_length`
    assert int(fitted(config, rows)["rows"]) == 0


def test_one_row_is_enough():
    rows = text_rows(["lonely"])
    assert np.isfinite(measured(language(), fitted(language(), rows), rows)).all()


# ------------------------------------------------------------------------------------------------------------- pairs
def test_broken_pairs_have_trajectories_of_their_own():
    rows = pair_rows()
    state = fitted(pairs(), rows)
    losses = measured(pairs(), state, rows)
    broken, whole = losses[:20], losses[20:]
    assert np.diff(whole.mean(0)).max() < 0 and broken[:, -1].mean() > whole[:, -1].mean() + 1
    some = rows.take([150, 2])
    assert np.allclose(measured(pairs(), state, some), losses[[150, 2]], atol=1e-5)  # no neighbour is asked


def test_a_pair_is_measured_against_the_references_but_for_itself():
    rows = pair_rows(n=30, broken=0)
    state = fitted(pairs(), rows)
    image, text = (unpack(rows[f"{n}_embedding"], "<f2").astype(np.float64) for n in ("image", "text"))
    assert sorted(map(bytes, state["reference/text_embedding"])) == sorted(
        map(bytes, unpack(rows["text_embedding"], "<f2"))
    )
    z = [side @ state[f"03/{n}_embedding"] for side, n in ((image, "image"), (text, "text"))]
    z = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in z]
    logits = np.exp(state["03/scale"][0]) * z[0] @ z[1].T  # all rows are references: its own pair counts once
    wanted = [np.log(np.exp(logits).sum(axis)) - np.diag(logits) for axis in (1, 0)]
    assert np.allclose(measured(pairs(), state, rows)[:, 3], np.mean(wanted, axis=0), atol=1e-4)


def test_rows_without_an_embedding_have_no_trajectory():
    rows = pair_rows(n=40)
    image = vectors.pack(vectors.unpack(rows["image_embedding"]), np.arange(40) != 3)
    text = np.array(vectors.unpack(rows["text_embedding"]))
    text[7] = np.nan
    rows = rows.set_column(1, "image_embedding", image).set_column(
        2, "text_embedding", vectors.pack(text, np.ones(40, bool))
    )
    found = measured(pairs(), fitted(pairs(), rows), rows)
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [3, 7]


# ---------------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize(("config", "rows"), [(language(), text_rows(sentences(60))), (pairs(), pair_rows(80))])
def test_training_goes_on_where_it_broke_off(config, rows, tmp_path, monkeypatch):
    whole = dump(fitted(config, rows))
    monkeypatch.setattr(proxy_training, "SAVE_SECONDS", 0)
    monkeypatch.setattr(proxy_training, "SAVE_SHARE", float("inf"))
    checkpoint = Checkpoint(str(tmp_path / "checkpoint.npz"))
    method = Trajectory(config)
    summaries = [method.summarise(rows)]

    class Breaking(Checkpoint):
        left = 0

        def save(self, state):
            super().save(state)
            Breaking.left -= 1
            if not Breaking.left:
                raise KeyboardInterrupt

    steps = []
    for Breaking.left in (1, 3, 2):  # before the first step; and twice in between
        with pytest.raises(KeyboardInterrupt):
            method.fit(summaries, Breaking(checkpoint.url))
        steps.append(int(checkpoint.load().get("step", -1)))
    assert steps == [-1, 3, 5]
    assert dump(Trajectory(config).fit(summaries, checkpoint)) == whole


def test_the_same_weights_for_any_number_of_threads_and_any_cut_into_shards(monkeypatch):
    from tasks.embed.encoder import single_threads

    rows, config = text_rows(sentences(60)), language()
    whole = dump(fitted(config, rows))
    for count in (1, 3):
        with single_threads(count) as pool, monkeypatch.context() as patch:
            patch.setattr(proxy_training, "worker_threads", lambda count, pool=pool: pool)
            assert dump(fitted(config, rows.slice(0, 13), rows.slice(13, 30), rows.slice(43))) == whole
    assert dump(fitted(config.model_copy(update={"seed": 1}), rows)) != whole


def test_it_learns_from_no_more_rows_than_it_may():
    rows, config = text_rows(sentences(200)), language(train_rows=40)
    method = Trajectory(config)
    summaries = [method.summarise(rows.slice(at, 100)) for at in (0, 100)]
    assert [len(one) for one in summaries] == [40, 40]
    state = method.fit(summaries)
    assert int(state["rows"]) == 40 and dump(state) == dump(method.fit([method.summarise(rows)]))
    same = rows.set_column(2, "uid", pa.array([b"x" * 16] * 200, pa.binary(16)))  # one coin for all
    assert int(fitted(config, same)["rows"]) == 40


def test_checkpoints_are_evenly_spread_and_never_more_than_steps():
    from tasks.score.proxy_training import Training

    class Nothing:
        count, threads = 10, False

        def initial(self):
            return {"w": np.zeros(2, np.float32)}

    config = language(epochs=0.01, checkpoints=5, batch_size=64)
    assert Training(Nothing(), config, "cpu").total == 5
    training = Training(Nothing(), language(epochs=4, checkpoints=4, batch_size=2), "cpu")
    assert (training.total, training._ends) == (20, [5, 10, 15, 20])


def test_training_that_does_not_converge_is_told(monkeypatch):
    loss = proxy_pairs.PairLearner.loss

    def broken(self, weights, rows):
        value, count = loss(self, weights, rows)
        return value * float("nan"), count

    monkeypatch.setattr(proxy_pairs.PairLearner, "loss", broken)
    with pytest.raises(ConfigError, match=r"loss is nan at step 0 of 20.*`learning_rate: 0.001`"):
        fitted(pairs(), pair_rows(40))


# ------------------------------------------------------------------------------------------------------------ settings
def test_a_model_of_transformers_is_trained_on(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(tmp_path)
    settings = transformers.GPT2Config(vocab_size=300, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(settings).save_pretrained(tmp_path)
    config = language(model=str(tmp_path), learning_rate=1e-2)
    rows = text_rows(sentences(60))
    Trajectory(config).check()
    facts = Trajectory(config).depends_on()
    assert facts["weights"] and facts["transformers"]
    state = fitted(config, rows)
    losses = measured(config, state, rows)
    assert (np.diff(losses[:30].mean(0)) < 0).all() and np.isfinite(losses).all()
    assert dump(fitted(config, rows)) == dump(state)
    one = given_lm.given_model(CausalLm(model=str(tmp_path), max_length=16), "cpu")
    assert given_lm.given_model(CausalLm(model=str(tmp_path), max_length=8), "cpu") is one, "loaded once"
    assert list(given_lm._given.values()) == [one] and not vars(one._given._seen).get("hidden")
    with pytest.raises(ConfigError, match="`max_length` is 17, but .* has 16 positions"):
        given_lm.given_model(CausalLm(model=str(tmp_path), max_length=17), "cpu")
    gone, _ = weakref.ref(one._given.model), one.initial(0)
    transformers.GPT2LMHeadModel(settings).save_pretrained(tmp_path)
    del one
    gc.collect(), gc.disable()
    try:
        given_lm.given_model(CausalLm(model=str(tmp_path), max_length=16), "cpu")
        assert gone() is None and len(given_lm._given) == 1, "only the last one is kept"
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_how_far_it_is_is_told(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.score.blockwise.TELL_SECONDS", 0)
    rows, config = (text_rows(sentences(60)), language()) if kind == "texts" else (pair_rows(60), pairs(epochs=2))
    told, method = [], Trajectory(config)
    state = method.fit([method.summarise(rows)], Checkpoint(str(tmp_path / "state.npz"), told.append))
    steps, first, last = len(told), *state["losses"][[0, -1]]
    assert told[-1] == f"proxy: 8 steps, loss {first:.4f} -> {last:.4f}"
    measuring = Trajectory(config, state=state)
    measuring.tell = told.append
    measuring.run(rows)
    far = told[steps:]
    if kind == "texts":
        assert re.fullmatch(r"\d+ of 60 rows were cut at `max_length` 16", far.pop(0))
    assert [line for line in far if line.endswith("rows 60 of 60")] == [
        f"checkpoint {t + 1} of {config.checkpoints}, rows 60 of 60" for t in range(config.checkpoints)
    ]


def test_equal_vectors_are_known_by_a_number_a_row():
    rng = np.random.default_rng(0)
    known = rng.standard_normal((5, 4)).astype(np.float16)
    own = np.concatenate([known[[3, 1, 3]], rng.standard_normal((2, 4)).astype(np.float16)])
    codes, theirs = proxy_pairs.codes_of(own, known)
    assert codes.shape == (5,) and theirs.shape == (5,)
    assert np.array_equal(codes[:, None] == theirs, (own[:, None] == known).all(2))


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(ValidationError, match="`width` must be a multiple of `heads`"):
        LanguageProxy(width=20, heads=3)
    with pytest.raises(ColumnError, match="the column 'ask' is int64"):
        Trajectory(language(prompt="ask")).check_columns(pa.schema([("ask", pa.int64())]))
    with pytest.raises(ModelError, match="neither a folder nor a name"):
        Trajectory(language(model=str(tmp_path / "none"))).check()


def test_a_plan_loads_no_heavy_library():
    import subprocess
    import sys

    program = """
import sys
from configs.methods.proxies import LanguageProxy, Trajectory as Config
from tasks.score.trajectory import Trajectory
for proxy in (LanguageProxy(), LanguageProxy(model="gpt2")):
    method = Trajectory(Config(proxy=proxy)); method.needs, method.depends_on(), method.device
print(sorted({"torch", "transformers", "tokenizers", "faiss"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "[]\n"


@pytest.mark.gpu
@pytest.mark.parametrize("config", [language(device="cuda"), pairs(device="cuda")])
def test_cuda_agrees_with_the_cpu(config):
    rows = text_rows(sentences(60)) if isinstance(config.proxy, LanguageProxy) else pair_rows(80)
    here = config.model_copy(update={"device": "cpu"})
    there = measured(config, fitted(config, rows), rows)
    assert np.allclose(measured(here, fitted(here, rows), rows), there, atol=0.02)
    assert np.array_equal(measured(config, fitted(config, rows), rows), there)
