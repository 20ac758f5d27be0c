"""Logits of a causal language model: tokens of prompt and response, blocks, rows that fail, models that will not do."""

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_lm import real_texts, tiny_lm, tiny_model, tiny_tokenizer

from configs.errors import ColumnError, ConfigError, ModelError
from configs.methods.logits import CausalLm
from tasks.score import causal_loading
from tasks.score.causal_lm import CausalLmLogits, planned

TEXTS = real_texts(120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_lm(tmp_path_factory.mktemp("lm"), TEXTS)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def source(folder, **settings):
    given = {"max_length": 64, "batch_tokens": 256, "device": "cpu", **settings}
    return CausalLmLogits(CausalLm(model=str(folder), **given))


def by_row(found):
    """Row -> its logits, tokens and response's positions, without padding."""
    return {
        int(row): (block.logits[i][there], block.tokens[i][there].tolist(), block.responses[i][there].tolist())
        for block in found
        for i, row in enumerate(block.rows)
        for there in [block.there[i]]
    }


def alone(folder, ids, dtype=torch.float32):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_a_rows_tokens_are_begin_prompt_separator_response_end(folder):
    from transformers import AutoTokenizer

    tokenizer, failures = AutoTokenizer.from_pretrained(folder), []
    ask, tell = ["What is 1+1? ", None, "", "why"], ["two", "alone", "after nothing", None]
    rows = pa.table({"ask": ask, "tell": tell})
    model = source(folder, prompt="ask", response="tell", separator=" ->\n")
    assert model.needs == model.input_columns == ("ask", "tell")
    found = by_row(model.blocks(rows, failures))
    for row, head in enumerate(["What is 1+1?  ->\n", "", " ->\n"]):
        first, last = tokenizer(head)["input_ids"], tokenizer(tell[row], add_special_tokens=False)["input_ids"]
        logits, tokens, responses = found[row]
        assert tokens == [*first, *last, tokenizer.eos_token_id] and first[0] == tokenizer.bos_token_id
        assert responses == [False] * len(first) + [True] * (len(last) + 1)
        torch.testing.assert_close(logits, alone(folder, tokens), rtol=1e-4, atol=1e-4)
    assert [(one.row, one.reason) for one in failures] == [(3, "no_tokens")] and 3 not in found


def test_rows_are_cut_at_the_length_and_fail_if_no_response_is_left(folder):
    rows, failures = pa.table({"ask": ["a " * 5, "a " * 30], "tell": ["b " * 40, "b"]}), []
    found = by_row(source(folder, prompt="ask", response="tell", max_length=20).blocks(rows, failures))
    assert [len(tokens) for _, tokens, _ in found.values()] == [20] and found[0][1][-1] != 2
    assert [(one.row, one.reason) for one in failures] == [(1, "no_tokens")] and "`max_length` is 20" in failures[
        0
    ].detail


def test_null_rows_are_passed_over_and_bad_ones_fail(folder):
    raw = pa.array([b"fine", None, b"", b"\xff\xfe", b"good"]).cast(pa.binary())
    text = pa.StringArray.from_buffers(5, *raw.buffers()[1:], null_bitmap=raw.buffers()[0])
    failures = []
    found = by_row(source(folder).blocks(pa.table({"text": text}), failures))
    assert sorted(found) == [0, 4]
    assert sorted((one.row, one.reason) for one in failures) == [(2, "no_tokens"), (3, "undecodable_text")]
    assert not list(source(folder).blocks(pa.table({"text": pa.nulls(3)}), failures))
    assert not list(source(folder).blocks(pa.table({"text": pa.array([], pa.string())}), failures))
    with pytest.raises(ColumnError, match=r"'text' is of type list<.*must be text"):
        list(source(folder).blocks(pa.table({"text": [["a"]]}), failures))


def test_every_row_is_in_one_block_of_bounded_size_and_bytes_repeat(folder):
    model, table = source(folder), pa.table({"text": TEXTS})
    blocks = list(model.blocks(table, []))
    assert sorted(np.concatenate([block.rows for block in blocks]).tolist()) == list(range(len(TEXTS)))
    assert all(block.there.numel() <= 256 for block in blocks) and len(blocks) > 10
    assert model.shape() == (64, 500) and all(block.logits.shape[2] == 500 for block in blocks)
    assert all(block.hidden is None for block in blocks)
    with ThreadPoolExecutor(3) as pool:  # the model is shared by threads
        for again in pool.map(lambda _: list(model.blocks(table, [])), range(3)):
            assert all(
                a.logits.equal(b.logits) and (a.rows == b.rows).all() for a, b in zip(blocks, again, strict=True)
            )


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200))
def test_blocks_are_the_rows_by_length_with_no_room_left(lengths, tokens):
    blocks = planned(np.array(lengths, np.int64), tokens)
    order = np.concatenate([*blocks, np.zeros(0, np.int64)]).astype(int).tolist()
    assert order == sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for block in blocks:
        assert len(block) == 1 or len(block) * lengths[block[0]] <= tokens
        assert block is blocks[-1] or (len(block) + 1) * lengths[block[0]] > tokens


def test_logits_do_not_depend_on_the_neighbours(folder):
    table, model = pa.table({"text": TEXTS}), source(folder)
    whole = by_row(model.blocks(table, [], hidden=True))
    for other in (source(folder, batch_tokens=1), source(folder, batch_tokens=4096)):
        for row, (logits, tokens, _) in by_row(other.blocks(table, [])).items():
            assert tokens == whole[row][1]
            torch.testing.assert_close(logits, whole[row][0], rtol=1e-4, atol=1e-4)


def test_hidden_is_what_the_head_makes_logits_of(folder):
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    for block in source(folder).blocks(pa.table({"text": TEXTS[:9]}), [], hidden=True):
        torch.testing.assert_close(block.hidden @ head.T, block.logits, rtol=1e-4, atol=1e-4)


def doctored(folder, **changes):
    """The model with some weights replaced: name -> what makes the new from the old."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name, change in changes.items():
        weights[name] = change(weights[name].clone())
    save_file({name: weight for name, weight in weights.items() if weight is not None}, path, {"format": "pt"})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_with_logits_that_are_not_finite_fails_alone(folder, copy, value):
    from transformers import AutoTokenizer

    cursed = AutoTokenizer.from_pretrained(folder)("Ω", add_special_tokens=False)["input_ids"][-1]

    def curse(weight):
        weight[cursed, 0] = value
        return weight

    doctored(copy, **{"model.embed_tokens.weight": curse})
    texts, failures = [*TEXTS[:10], "an Ω here", *TEXTS[10:20]], []
    found = by_row(source(copy).blocks(pa.table({"text": texts}), failures, hidden=True))
    assert [(one.row, one.reason) for one in failures] == [(10, "non_finite_logits")]
    healthy = by_row(source(folder).blocks(pa.table({"text": texts}), []))
    assert sorted(found) == [row for row in range(21) if row != 10]
    for row in found:
        torch.testing.assert_close(found[row][0], healthy[row][0], rtol=1e-4, atol=1e-4)


def test_precision_is_the_models(folder):
    (block,) = source(folder, precision="bf16").blocks(pa.table({"text": TEXTS[:1]}), [])
    exact = alone(folder, block.tokens[0].tolist())
    assert block.logits.dtype == torch.bfloat16
    assert (block.logits[0].float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_the_model_is_loaded_once_and_anew_when_its_files_change(copy, monkeypatch):
    loads = []
    real = causal_loading.LanguageModel.__init__
    monkeypatch.setattr(causal_loading.LanguageModel, "__init__", lambda *a: (loads.append(1), real(*a))[1])
    gate = threading.Barrier(4)

    def use(_):
        gate.wait()
        return source(copy).model()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(use, range(4))))) == 1 and len(loads) == 1
    before = source(copy).depends_on()
    doctored(copy, **{"lm_head.weight": lambda weight: weight + 1})
    assert source(copy).depends_on() != before and source(copy).depends_on() == source(copy).depends_on()
    source(copy).model()
    assert len(loads) == 2


def test_planning_imports_no_heavy_library(folder):
    code = (
        "import sys\nfrom configs.methods.logits import CausalLm\nfrom tasks.score import gradients, losses\n"
        "from tasks.score.utility_diversity import UtilityDiversity\n"
        "from configs.methods.utility import UtilityDiversity as Section\n"
        f"one = UtilityDiversity(Section(logits=CausalLm(model={str(folder)!r}, max_length=64)))\n"
        "one.depends_on(), one.check()\nprint(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    with pytest.raises(ConfigError, match=r"^`logits: causal_lm` needs .*: pip install 'mixwright\[text\]'$"):
        source("org/name")


def unlink(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def configured(**changes):
    def write(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return write


def own_code(folder):
    """What the hub calls custom code; it must not run."""
    configured(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})(folder)
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass Own: pass\n")


BROKEN = {
    "no configuration": (unlink("config.json"), ModelError, "holds no configuration"),
    "no tokenizer": (unlink("tokenizer.json", "tokenizer_config.json"), ModelError, "holds no tokenizer"),
    "pickled weights": (pickled, ModelError, "holds no weights"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), ModelError, "config.json is damaged"),
    "too few positions": (
        configured(max_position_embeddings=63),
        ConfigError,
        "`max_length` is 64, but .* 63 positions",
    ),
    "cut off": (lambda folder: (folder / "model.safetensors").write_bytes(b"a" * 999), ModelError, "cannot be loaded"),
    "a weight missing": (
        lambda folder: doctored(folder, **{"lm_head.weight": lambda _: None}),
        ModelError,
        "lack the weights lm_head.weight$",
    ),
    "a weight of another shape": (
        lambda folder: doctored(folder, **{"lm_head.weight": lambda weight: weight[:9].clone()}),
        ModelError,
        "cannot be loaded",
    ),
    "code of its own": (own_code, ModelError, "cannot be loaded"),
    "another tokenizer": (
        lambda folder: tiny_tokenizer(TEXTS, 900).save_pretrained(folder),
        ConfigError,
        "token ids up to 8.., but whose vocabulary has 500",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_will_not_do_is_refused_in_a_sentence(copy, name):
    spoil, kind, told = BROKEN[name]
    spoil(copy)
    with pytest.raises(kind, match=told) as caught:
        model = source(copy)
        model.check()
        model.model()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and not (copy / "ran").exists()


def test_a_name_of_the_hub_is_fetched_as_told_and_its_errors_are_one_sentence(monkeypatch):
    import huggingface_hub
    import transformers

    asked, hub = [], []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *a, **options: hub.append((a, options)))

    def unreachable(*names, **options):
        asked.append((names, options))
        raise OSError("We couldn't connect\nto the hub")

    model = source("org/name", revision="abc")
    model.check()
    assert model.depends_on()["weights"] is None
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(
        ModelError, match=r"^`model` is 'org/name@abc', which cannot be .*: We couldn't connect to the hub"
    ):
        model.model()
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unreachable)
    with pytest.raises(ModelError):
        model.model()
    assert all(names == ("org/name",) and options["revision"] == "abc" for names, options in asked)
    assert all(options["trust_remote_code"] is False for _, options in asked) and asked[1][1]["use_safetensors"] is True

    assert hub == [(("org/name",), {"revision": "abc", "timeout": 5.0})] * 2
    assert not any(options["local_files_only"] for _, options in asked)


def test_a_hub_that_cannot_be_asked_is_asked_once_and_the_cache_serves(monkeypatch):
    import huggingface_hub
    import transformers

    asked, loads = [], []

    def unreachable(self, *names, **options):
        asked.append(options)
        raise OSError("[Errno -2] Name or service not known")

    def load(*names, **options):
        loads.append(options["local_files_only"])
        raise OSError("damaged")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", load)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    told = r"^`model` is 'org/name': there is no folder /.*/org/name, the hub's cache has no such model, and \S+ cannot"
    with pytest.raises(ModelError, match=told + r" be asked: \[Errno -2\] Name or service not known$") as caught:
        source("org/name").model()
    assert len(asked) == 1 and asked[0]["timeout"] <= 5 and not loads
    assert caught.value.__suppress_context__, "no traceback of the library's"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "config.json")
    with pytest.raises(ModelError, match="cannot be loaded: damaged"):
        source("org/name").model()
    assert len(asked) == 2 and loads == [True]


def test_a_model_that_the_hub_does_not_have_is_refused_in_a_sentence(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    class NotFound(RepositoryNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404 Client Error.\n\nRepository Not Found for url")

    def refuse(self, *names, **options):
        raise NotFound

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=r"no folder /.*/org/name, and https\S+ does not give it: 404 Client Error\.$"):
        source("org/name").model()


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "a/b/c", "not a name", "../my-model", "./my-modell", "no-model-here", ".hidden/x", "~/x"],
)
def test_a_model_that_is_neither_folder_nor_name_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="neither a folder nor a name .* names look like org/name$") as caught:
        source(name).check()
    told = str(caught.value)
    assert repr(name) in told and f"no folder {os.path.abspath(name)} (relative paths start at the working" in told


def test_rows_that_are_cut_are_counted_and_told(folder):
    rows, told = pa.table({"text": ["b " * 80, "b " * 90, "b", ""]}), []
    model = source(folder)
    model.tell = told.append
    list(model.blocks(rows, []))
    assert told == ["2 of 3 rows were cut at `max_length` 64"]
    list(model.blocks(rows.slice(2), []))
    assert len(told) == 1


def test_a_model_that_is_no_longer_kept_is_freed_and_keeps_no_activations(folder):
    model = source(folder).model()
    (block,) = source(folder).blocks(pa.table({"text": ["a row"]}), [], hidden=True)
    assert block.hidden is not None
    model.model(input_ids=torch.ones((1, 3), dtype=torch.int64))  # as who trains it
    assert not vars(model._seen).get("hidden"), "the graph behind it would stay"
    gone, kept = weakref.ref(model.model), gc.isenabled()
    gc.disable()
    try:
        del model, block
        causal_loading._loaded.clear()
        assert gone() is None, "in a cycle"
    finally:
        if kept:
            gc.enable()


def test_a_model_of_few_tokens_of_which_a_tokenizer_uses_fewer_will_do(tmp_path):
    folder = tiny_lm(tmp_path, TEXTS[:3], vocab=600)
    tiny_model(300, 640, 32, 1, 64, 0).save_pretrained(folder)
    assert source(folder).shape() == (64, 640)


@pytest.mark.gpu
def test_cuda_gives_the_logits_of_the_cpu(folder):
    table = pa.table({"text": TEXTS})
    expected = by_row(source(folder).blocks(table, [], hidden=True))
    for row, (logits, tokens, responses) in by_row(
        source(folder, device="cuda").blocks(table, [], hidden=True)
    ).items():
        assert logits.is_cuda and (tokens, responses) == expected[row][1:]
        torch.testing.assert_close(logits.cpu(), expected[row][0], rtol=1e-3, atol=1e-3)
