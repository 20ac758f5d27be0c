"""A mix as people read it: with `datasets`, from files or from the folder."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import config, run
from PIL import Image


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    from corpora import write_corpus

    folder = tmp_path_factory.mktemp("reading")
    write_corpus(folder / "in")
    return run(config(folder))


@pytest.mark.parametrize("way", ["files", "folder"])
def test_load_dataset_gives_pictures_text_and_columns_in_batch_order(mix, way, tmp_path):
    from datasets import load_dataset

    if way == "files":
        data = load_dataset("parquet", data_files=f"{mix.url}/data/*.parquet", split="train", cache_dir=str(tmp_path))
    else:
        data = load_dataset(mix.url, cache_dir=str(tmp_path))["train"]
    assert len(data) == mix.emitted
    order = [
        (r["mix_step"], r["mix_rank"], r["mix_slot"]) for r in data.select_columns(["mix_step", "mix_rank", "mix_slot"])
    ]
    assert order == sorted(order)
    row = data[5]
    assert isinstance(row["image"], Image.Image) and row["image"].size == (8, 8)
    assert row["text"] and row["key"].startswith("k-") and row["source"] in ("web", "books", "art")
    assert isinstance(row["alignment"], float) and len(row["mix_uid"]) == 32


def test_row_groups_of_pictures_are_small_and_pictures_have_no_dictionary(mix):
    for file in sorted(Path(mix.url, "data").glob("*.parquet")):
        metadata = pq.read_metadata(file)
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            assert group.num_rows <= 100
            picture = next(
                group.column(j) for j in range(group.num_columns) if group.column(j).path_in_schema == "image.bytes"
            )
            assert "RLE_DICTIONARY" not in picture.encodings and picture.compression == "UNCOMPRESSED"
    assert len(list(Path(mix.url, "data").glob("*.parquet"))) > 1
