"""Examples on disk: what is written is what is read, and never half of it."""

import numpy as np
import pyarrow as pa
import pytest

from finetune.text.tokens import SCHEMA, TokenRows, TokenWriter

ROWS = [
    ("a" * 16, "law", [1, 5, 6, 7, 2], [3, 5]),
    ("b" * 16, "food", [1, 2], []),
    ("c" * 16, "law", [1, 9, 9, 2, 9, 9, 2], [2, 4, 5, 7]),
    ("d" * 16, "food", list(range(100)), [1, 100]),
]


def _write(folder, rows=ROWS, rows_per_shard=100):
    with TokenWriter(folder, rows_per_shard) as writer:
        for row in rows:
            writer.write(*row)
    return folder


@pytest.mark.parametrize("rows_per_shard", [1, 2, 3, 100])
def test_rows_come_back_as_they_were_written(tmp_path, rows_per_shard):
    rows = TokenRows(_write(tmp_path / "train", rows_per_shard=rows_per_shard))
    assert len(rows) == len(ROWS)
    for number, (id, source, input_ids, spans) in enumerate(ROWS):
        row = rows[number]
        assert (row.id, row.source) == (id, source)
        assert row.input_ids.tolist() == input_ids and row.input_ids.dtype == np.int32
        assert row.spans.tolist() == spans and row.spans.dtype == np.int32


@pytest.mark.parametrize("rows_per_shard", [1, 3, 100])
def test_lengths_and_supervised_tokens_are_counted_over_all_shards(tmp_path, rows_per_shard):
    rows = TokenRows(_write(tmp_path / "train", rows_per_shard=rows_per_shard))
    assert rows.lengths.tolist() == [5, 2, 7, 100]
    assert rows.supervised.tolist() == [2, 0, 4, 99]
    assert [len(rows[n].supervised()) for n in range(4)] == rows.supervised.tolist()


def test_supervised_positions_are_those_of_all_spans(tmp_path):
    rows = TokenRows(_write(tmp_path / "train"))
    assert rows[2].supervised().tolist() == [2, 3, 5, 6]
    assert rows[1].supervised().tolist() == []


def test_a_batch_is_cut_where_a_shard_is_full(tmp_path):
    batch = pa.RecordBatch.from_pylist(
        [dict(zip(SCHEMA.names, row, strict=True)) for row in ROWS], SCHEMA
    )
    with TokenWriter(tmp_path / "train", rows_per_shard=3) as writer:
        writer.write(*ROWS[0])
        writer.write_batch(batch)
    rows = TokenRows(tmp_path / "train")
    assert [rows[n].id for n in range(5)] == [row[0] for row in (ROWS[0], *ROWS)]
    assert rows.lengths.tolist() == [5, 5, 2, 7, 100]
    assert rows.supervised.tolist() == [2, 2, 0, 4, 99]
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_no_rows_are_a_folder_with_an_empty_shard(tmp_path):
    rows = TokenRows(_write(tmp_path / "test", rows=[]))
    assert len(rows) == 0
    assert rows.lengths.tolist() == rows.supervised.tolist() == []
    with pytest.raises(IndexError, match="row 0 of 0"):
        rows[0]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    first, second = _write(tmp_path / "a"), _write(tmp_path / "b")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_failure_leaves_what_was_there_before(tmp_path):
    _write(tmp_path / "train", rows=ROWS[:1])
    with pytest.raises(RuntimeError), TokenWriter(tmp_path / "train") as writer:
        writer.write(*ROWS[1])
        raise RuntimeError
    assert TokenRows(tmp_path / "train")[0].id == ROWS[0][0]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_a_missing_folder_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="run `dvc repro preprocess`"):
        TokenRows(tmp_path)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = _write(tmp_path / "train") / "tokens-00000.arrow"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"tokens-00000.arrow is damaged"):
        TokenRows(tmp_path / "train")
