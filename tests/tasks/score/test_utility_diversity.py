"""Nuclear norms and sketches of rows, from any source of logits: against numpy, and whatever the neighbours."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_lm import real_texts, tiny_lm

from configs.errors import ConfigError
from configs.methods.logits import CausalLm, PairTokens
from configs.methods.utility import UtilityDiversity as Section
from storage.packed import unpack
from tasks import Failure
from tasks.score.logits import Block
from tasks.score.uds import LogitSketch
from tasks.score.utility_diversity import UtilityDiversity

TEXTS = real_texts(80)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_lm(tmp_path_factory.mktemp("lm"), TEXTS)


def scorer(folder, lm=None, **settings):
    logits = {"model": str(folder), "max_length": 32, "batch_tokens": 256, "device": "cpu", **(lm or {})}
    return UtilityDiversity(Section(logits=CausalLm(**logits), **settings))


def scores(result):
    return result.table["intra"].to_numpy(zero_copy_only=False), unpack(result.table["sketch"], np.float32)


@pytest.mark.parametrize("positions", ["all", "response"])
def test_scores_are_the_norm_and_the_sketch_of_the_rows_own_positions(folder, positions):
    method = scorer(folder, {"prompt": "ask", "response": "tell"}, positions=positions, seed=3, vocab_dim=16)
    rows = pa.table({"ask": TEXTS[:30], "tell": TEXTS[30:60]})
    result = method.run(rows)
    intra, sketch = scores(result)
    assert result.table.schema.types == [pa.float32(), pa.binary(4 * 8 * 16)]
    exact = LogitSketch(32, 500, seed=3, vocab_dim=16)
    seen = 0
    for block in method.source.blocks(rows, []):
        for i, row in enumerate(block.rows):
            mask = block.there[i] if positions == "all" else block.responses[i]
            matrix = torch.where(mask[:, None], block.logits[i], 0).double()
            norm = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
            assert intra[row] == pytest.approx(norm, rel=1e-4)
            np.testing.assert_allclose(sketch[row], exact.project(matrix[None])[0], rtol=1e-3, atol=1e-3 * norm)
            seen += 1
    assert seen == 30 - len(result.failures) > 10


def test_rows_that_fail_or_are_null_have_no_scores(folder):
    result = scorer(folder).run(pa.table({"text": ["", TEXTS[0], None, TEXTS[1]]}))
    assert result.failures == [Failure(0, "no_tokens", "the response has no tokens")]
    assert result.table["intra"].is_valid().to_pylist() == result.table["sketch"].is_valid().to_pylist()
    assert result.table["intra"].is_valid().to_pylist() == [False, True, False, True]
    empty = scorer(folder).run(pa.table({"text": pa.array([], pa.string())}))
    assert empty.table.schema == result.table.schema and len(empty.table) == 0


def test_scores_do_not_depend_on_the_neighbours_and_repeat(folder):
    method = scorer(folder)
    whole = method.run(pa.table({"text": TEXTS}))
    assert whole.table.equals(method.run(pa.table({"text": TEXTS})).table)
    intra, sketch = scores(whole)
    some = [3, 50, 7, 79]
    part_intra, part_sketch = scores(method.run(pa.table({"text": [TEXTS[row] for row in some]})))
    np.testing.assert_allclose(part_intra, intra[some], rtol=1e-4)
    np.testing.assert_allclose(part_sketch, sketch[some], rtol=1e-3, atol=1e-3 * np.abs(sketch).max())


class Handed:
    """A source of logits of slices: 5 positions by 9 of a vocabulary; row 2 is padding alone, row 4 fails."""

    needs, input_columns, libraries, device = ("image",), (), ("torch",), "cpu"

    def check(self):
        raise ConfigError("checked")

    def depends_on(self):
        return {"weights": "w"}

    def shape(self):
        return 5, 9

    def blocks(self, rows, failures, *, hidden=False):
        at = 0
        for slice_ in rows:
            there = torch.ones(len(slice_), 5, dtype=torch.bool)
            logits = torch.randn(len(slice_), 5, 9, generator=torch.Generator().manual_seed(at))
            if at == 2:
                there[0], logits[0] = False, torch.nan
            kept = slice(0, 2) if at == 2 else slice(None)
            failures += [Failure(4, "undecodable_image", "")] if at == 2 else []
            yield Block(np.arange(at, at + len(slice_))[kept], logits[kept], there[kept], there[kept], None, None)
            at += len(slice_)


def test_any_source_serves_and_may_come_in_slices(monkeypatch):
    monkeypatch.setattr("tasks.score.utility_diversity.load", lambda *_: Handed())
    section = Section(logits=PairTokens(vocabulary="x"), vocab_dim=4)
    method = UtilityDiversity(section)
    images = pa.table({"image": pa.array([b"x"] * 7)})
    result = method.run(iter([images.slice(0, 2), images.slice(2, 3), images.slice(5, 2)]))
    intra, sketch = scores(result)
    assert result.table["intra"].null_count == 1 and result.failures == [Failure(4, "undecodable_image", "")]
    assert intra[2] == 0 and not sketch[2].any(), "a row of padding has no utility"
    assert np.isnan(intra[4]) and (np.delete(intra, [2, 4]) > 1).all()
    assert (method.needs, method.device, method.libraries) == (("image",), "cpu", ("torch",))
    assert method.depends_on()["weights"] == "w" and len(method.depends_on()["logits"]) == 32
    with pytest.raises(ConfigError, match="checked"):
        method.check()


def test_positions_of_responses_are_of_language_models_alone():
    with pytest.raises(ConfigError, match="`positions` is response, but `logits` is pair_tokens"):
        UtilityDiversity(Section(logits=PairTokens(vocabulary="x"), positions="response"))


def test_longer_rows_than_the_sketch_was_made_for_cannot_be(folder):
    """The model cuts rows at `max_length`, which is the sketch's length."""
    result = scorer(folder, {"max_length": 5}).run(pa.table({"text": ["word " * 500]}))
    assert result.table["intra"].null_count == 0 and not result.failures


def test_how_far_it_is_and_what_was_cut_is_told(folder, monkeypatch):
    monkeypatch.setattr("tasks.score.blockwise.TELL_SECONDS", 0)
    method, told = scorer(folder, {"max_length": 5}), []
    method.tell = told.append
    method.run(pa.table({"text": ["word " * 500, "a"]}))
    assert told == ["1 of 2 rows were cut at `max_length` 5", *told[1:]] and told[-1] == "rows 2 of 2"
    monkeypatch.setattr("tasks.score.utility_diversity.load", lambda *_: Handed())
    streamed = UtilityDiversity(Section(logits=PairTokens(vocabulary="x"), vocab_dim=4))
    streamed.tell = told.append
    streamed.run(iter([pa.table({"image": pa.array([b"x"] * 2)})]))
    assert told[-1] == "rows 2"
