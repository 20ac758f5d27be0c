"""The command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, run
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli import app

HEAVY = ("torch", "open_clip", "faiss", "datasets", "matplotlib", "imagehash", "pywt", "rensa")
HEAVY += (
    "torch_geometric",
    "optuna",
    "sklearn",
    "tokenizers",
    "scipy.sparse",
    "scipy.stats",
    "scipy.fft",
    "ray",
    "dask",
)
SELECTS = [
    *({"kind": kind} for kind in ("exact_duplicates", "minhash", "perceptual", "near_duplicates")),
    *({"kind": kind, "target_fraction": 0.9} for kind in ("facility_location", "k_center", "cluster_balanced")),
    {"kind": "gais", "tune_trials": 2},
]
runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


def call(*arguments: str):
    return runner.invoke(app, list(arguments))


@pytest.fixture
def file(corpus: Path) -> str:
    (corpus / "c.yaml").write_text(yaml.safe_dump(config(corpus).model_dump(mode="json")))
    return str(corpus / "c.yaml")


@pytest.mark.parametrize("command", sorted(c.name or c.callback.__name__ for c in app.registered_commands))
def test_every_command_teaches(command):
    told = call(command, "--help")
    assert told.exit_code == 0 and len(told.output.splitlines()) > 5


@pytest.mark.nightly
def test_a_section_that_is_left_out_is_skipped_whatever_presets_say(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a", "a", "b", "b"]}), tmp_path / "in" / "a.parquet")
    over = {"name": "x", "store": f"{tmp_path}/store", "emit": {"out": f"{tmp_path}/out"}}
    over |= {"input": {"path": f"{tmp_path}/in", "image": None}, "sample": {"kind": "iid", "batch_size": 2}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(over))
    line = [sys.executable, "-m", "flows.cli", "curate", str(tmp_path / "c.yaml")]
    told = subprocess.run(line, capture_output=True, text=True, timeout=240)
    assert told.returncode == 0 and "4 were kept, 0 dropped" in told.stdout
    with temporary_settings(restore_defaults={PREFECT_API_URL}):  # other tests of this process have a server
        assert "nothing to do" in call("curate", str(tmp_path / "c.yaml")).output


def test_check_refuses_what_the_limit_would_fail(corpus, file):
    for number in range(4):
        (corpus / "in" / f"0000{number}.parquet").write_bytes(b"<html>")
    told = call("check", file)
    assert told.exit_code == 2 and "4 of 7 files are damaged, more than `max_quarantine_fraction` 0.5" in told.output


def test_a_refusal_is_one_line_without_a_traceback(tmp_path, file):
    told = call("curate", file, "--set", "sample.batch_size=-1")
    assert (
        told.exit_code == 2 and "`sample.batch_size` is -1: input should be greater than or equal to 1" in told.output
    )
    assert call("curate", str(tmp_path / "none.yaml")).exit_code == 2
    assert "is not a mix" in call("verify", str(tmp_path)).output


def test_a_dry_run_tells_what_is_to_do_and_does_nothing(file, corpus):
    told = call("curate", file, "--dry-run")
    assert told.exit_code == 0, told.output
    assert "7 files, 420 rows" in told.output and "7 files are new" in told.output
    assert not (corpus / "out").exists() and not list((corpus / "store").rglob("*.parquet"))
    run(config(corpus))
    told = call("curate", file, "--dry-run")
    assert "0 files are new" in told.output and told.output.count("7 shards") >= 4 and told.output.count("done") >= 5


def test_check_names_what_does_not_fit(file, corpus):
    assert "7 files, 420 rows" in call("check", file, "--sample", "0").output
    told = call("check", file, "--sample", "0", "--set", "sample.batch_size=512")
    assert told.exit_code == 0 and "would be empty: a batch needs a superbatch of 1,024 draws, of 420" in told.output
    told = call("check", file, "--set", "annotate={kind: column, column: image_emb}")
    assert told.exit_code == 2 and "`annotate`: `image_emb` is a column of list" in told.output.replace("\n", " ")
    told = call("check", file, "--set", "embed.text=source")
    assert told.exit_code == 2 and "`embed`: `source` is a column of string" in told.output.replace("\n", " ")
    told = call("check", file, "--set", "input.key=kee")
    assert told.exit_code == 2 and "`input.key` is 'kee', but 00000.parquet has no such column" in told.output
    told = call("check", file, "--set", "annotate={kind: column, column: classes}")
    assert (
        told.exit_code == 2
        and "has no column 'classes', which `annotate` names; its columns are image, text" in told.output
    )
    told = call("check", file, "--set", "embed=null")
    assert (
        told.exit_code == 2
        and "`score: alignment` needs the column 'alignment', which nothing before it makes" in told.output
    )


def test_verify_finds_the_first_discrepancy(corpus):
    mix = run(config(corpus))
    assert call("verify", f"{corpus}/out/mix").exit_code == 0
    part = Path(mix.url) / "data" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(bytes(data))
    told = call("verify", mix.url)
    assert told.exit_code == 1 and "data/part-00000.parquet has another content than the manifest says" in told.output


def test_explain_tells_of_a_row_by_key_by_place_and_by_uid(corpus):
    import pyarrow.parquet as pq

    mix = run(config(corpus))
    told = call("explain", mix.url, "k-1-4")
    assert told.exit_code == 0, told.output
    for word in ("exact_duplicate", "00000.parquet", "keeper_row", "concepts", "alignment", "uid"):
        assert word in told.output
    assert "image_null" in call("explain", mix.url, "00000.parquet:7").output
    row = pq.read_table(Path(mix.url) / "data" / "part-00000.parquet").slice(0, 1).to_pylist()[0]
    told = call("explain", mix.url, row["mix_uid"])
    assert row["key"] in told.output and "mix_step" in told.output
    assert call("explain", mix.url, "no-such-key").exit_code == 2


def test_explain_shows_names_and_keys_as_they_are_and_takes_no_markup_from_them(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "in").mkdir()
    rows = {"text": ["a", "b"], "key": ["[/b]", "[red]x"]}
    pq.write_table(pa.table(rows), tmp_path / "in" / "x:[i]#1.parquet")
    plain = {"embed": None, "annotate": None, "score": [], "select": [], "input": {"image": None, "source": None}}
    plain |= {"sample": {"kind": "iid", "batch_size": 1, "filter_ratio": 0.0}}
    mix = run(config(tmp_path, plain))
    told = call("explain", mix.url, "x:[i]#1.parquet:1").output
    assert "x:[i]#1.parquet:1" in told and "[red]x" in told
    told = call("explain", mix.url, "[/b]")
    assert told.exit_code == 0 and "x:[i]#1.parquet:0" in told.output
    (tmp_path / "in" / "bad.parquet").write_bytes(b"no")
    told = call("explain", run(config(tmp_path, plain)).url, "bad.parquet")
    assert told.exit_code == 0 and "damaged_file" in told.output


@pytest.mark.parametrize("arguments", [["--help"], ["settings"], ["curate", "CONFIG", "--dry-run"]])
def test_light_commands_load_no_heavy_library(corpus, arguments):
    file = corpus / "c.yaml"
    scores = {"score": [{"kind": "alignment"}, {"kind": "tokens"}], "select": SELECTS}
    file.write_text(yaml.safe_dump(config(corpus, scores).model_dump(mode="json")))
    arguments = [str(file) if a == "CONFIG" else a for a in arguments]
    program = (
        "import sys; from flows.cli import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as e: assert not e.code\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "HEAVY []" in told.stdout, told.stdout + told.stderr


def test_a_cached_rerun_loads_no_heavy_library(corpus):
    run(config(corpus))
    program = (
        "import sys; from pathlib import Path; from corpora import config, run\n"
        f"run(config(Path({str(corpus)!r})))\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    tests = str(Path(__file__).parents[1])
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": tests})
    assert "HEAVY []" in told.stdout, told.stdout + told.stderr
