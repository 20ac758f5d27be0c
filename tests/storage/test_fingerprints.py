import importlib
import sys

import pytest

from storage import fingerprints


def test_order_of_keys_does_not_matter_and_values_do():
    assert fingerprints.fingerprint({"a": 1, "b": [2]}) == fingerprints.fingerprint({"b": [2], "a": 1})
    assert fingerprints.fingerprint({"a": 1}) != fingerprints.fingerprint({"a": "1"})


@pytest.mark.parametrize(
    "how", ["from tasks_probe.kernel import f", "from tasks_probe import kernel", "import tasks_probe.kernel"]
)
def test_source_digest_follows_imports_of_ours(tmp_path, monkeypatch, how):
    package = tmp_path / "tasks_probe"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text(f"{how}\n")
    (package / "kernel.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprints, "PACKAGES", ("tasks_probe",))
    importlib.invalidate_caches()
    seen = []
    for text in ("def f(): return 1\n", "def f(): return 2\n"):
        (package / "kernel.py").write_text(text)
        fingerprints.source_digest.cache_clear()
        seen.append(fingerprints.source_digest("tasks_probe.method"))
    fingerprints.source_digest.cache_clear()
    assert seen[0] != seen[1]
    assert "tasks_probe.kernel" not in sys.modules


@pytest.mark.parametrize("package", ["flows", "tasks", "storage", "configs"])
def test_the_generic_names_are_ours(package):
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    assert Path(importlib.import_module(package).__file__).is_relative_to(root)
