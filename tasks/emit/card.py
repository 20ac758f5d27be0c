"""The data card of a mix: README.md with the YAML head that Hugging Face reads, and how to load it."""

from __future__ import annotations

from typing import Any

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# {name}

A training mix in batch order, version `{version}`, made by Mixwright from {files} input files.

| | rows |
|---|---|
| in | {rows_in:,} |
| kept (used at least once) | {kept:,} |
| dropped | {dropped:,} |
| quarantined | {quarantined:,} |
| emitted, repeats counted | {emitted:,} |

{steps:,} batches of {batch_size:,} rows for {world_size} training worker(s). Rows stand in the order of `mix_step`,
`mix_rank`, `mix_slot`; `mix_file` and `mix_row` name the input row, `mix_uid` its content.

```python
from datasets import load_dataset
mix = load_dataset("parquet", data_files="data/*.parquet", split="train")
```

`ledger/` says of every input row what became of it and why; `quarantine/`, if there is one, holds what could not be
processed; `mix.json` names configuration, inputs and digests.
"""


def card(manifest: dict[str, Any]) -> str:
    """The card for a manifest."""
    facts = {"files": len(manifest["parents"]), **manifest["counts"], **manifest["batches"]}
    return CARD.format(name=manifest["name"], version=manifest["version"], **facts)
