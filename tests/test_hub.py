"""The real hub client against a stand-in for the hub on loopback."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import hub_server
from tests.fetching import assert_one_clear_error, fetch, manifest, rows

NAME = "someone/questions"


def lines(*texts):
    return "".join(
        json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)
    ).encode()


def parquet(rows, **options):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file.getvalue()


@pytest.fixture
def hub():
    with hub_server.serve() as server:
        yield server


@pytest.fixture
def get(hub, tmp_path):
    """Fetch a dataset of the stand-in; keys override those of the source."""

    def get(commit, env=None, **keys):
        source = {"name": NAME, "revision": commit, "files": {"all": "*.jsonl"}, "columns": []}
        source |= {"filter": {}, "max_rows": None, "license": "CC0-1.0", "evidence": "the card"}
        where = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
        return fetch(tmp_path, "hub", source | keys, **where, **(env or {}))

    return get


def test_splits_and_origins_are_the_datasets_own(hub, get, tmp_path):
    files = {"train.jsonl": lines("a", "b"), "test.jsonl": lines("c"), "README.md": b"card"}
    commit = hub.commit("datasets", NAME, files)
    code, output = get(commit, files={"train": "train.jsonl", "test": "test.jsonl"})
    assert code == 0, output
    found = [(raw.split, raw.row["text"], raw.origin) for raw in rows(tmp_path)]
    assert found == [
        ("test", "c", f"{NAME}@{commit}:test.jsonl:1"),
        ("train", "a", f"{NAME}@{commit}:train.jsonl:1"),
        ("train", "b", f"{NAME}@{commit}:train.jsonl:2"),
    ]
    assert {raw.license for raw in rows(tmp_path)} == {"CC0-1.0"}
    assert [file["git_sha1"] for file in manifest(tmp_path)["files"]] == [
        hub_server.git_sha1(files[name]) for name in ("test.jsonl", "train.jsonl")
    ]


def test_a_branch_that_moved_does_not_change_what_a_commit_gives(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("old")})
    hub.commit("datasets", NAME, {"a.jsonl": lines("new"), "b.jsonl": lines("more")})
    assert get(commit)[0] == 0
    assert [raw.row["text"] for raw in rows(tmp_path)] == ["old"]


def test_columns_are_chosen_and_rows_filtered_and_counted(hub, get, tmp_path):
    table = [{"text": t, "tag": g, "other": 1} for t, g in [("a", "x"), ("b", "y"), ("c", None)]]
    commit = hub.commit("datasets", NAME, {"data/1.parquet": parquet(table)})
    keys = {"files": {"all": "data/*.parquet"}, "columns": ["text"], "filter": {"tag": "^x$"}}
    assert get(commit, **keys)[0] == 0
    assert [raw.row for raw in rows(tmp_path)] == [{"text": "a"}]
    assert manifest(tmp_path)["counts"] == {"rows": 1, "filtered out": 2}


@pytest.mark.parametrize(
    ("column", "pattern"), [("price", "1.1"), ("price", r"^1\.10$"), ("flag", "^true$")]
)
def test_a_filter_sees_numbers_and_truth_values_as_json_writes_them(
    hub, get, tmp_path, column, pattern
):
    data = b'{"price": 1.10, "flag": true}\n{"price": 2.50, "flag": false}\n'
    assert get(hub.commit("datasets", NAME, {"a.jsonl": data}), filter={column: pattern})[0] == 0
    assert [raw.row for raw in rows(tmp_path)] == [{"price": "1.10", "flag": True}]


def test_a_filter_finds_the_digits_of_a_narrow_number(hub, get, tmp_path):
    table, file = pa.table({"price": pa.array([4.99, 4.5], pa.float32())}), io.BytesIO()
    pq.write_table(table, file)
    commit = hub.commit("datasets", NAME, {"a.parquet": file.getvalue()})
    assert get(commit, files={"all": "*.parquet"}, filter={"price": r"^4\.99$"})[0] == 0
    assert [raw.row for raw in rows(tmp_path)] == [{"price": 4.99}]


def test_a_column_that_is_not_there_is_named_with_those_that_are(hub, get):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    assert_one_clear_error(*get(commit, columns=["txt"]), "a.jsonl:1", "'txt'", "text, n")


def test_a_filter_that_is_no_regular_expression_is_an_error(hub, get):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    assert_one_clear_error(*get(commit, filter={"text": "(a"}), "filter.text", "'(a'")


def test_max_rows_reads_no_further_than_it_must(hub, get, tmp_path):
    wide = [{"text": f"row {i}", "blob": f"{i:07d}" * 2000} for i in range(1800)]
    data = parquet(wide, row_group_size=100, compression=None, use_dictionary=False)
    commit = hub.commit("datasets", NAME, {"a.parquet": data, "b.parquet": data})
    code, output = get(commit, files={"all": "*.parquet"}, columns=["text"], max_rows=150)
    assert code == 0, output
    assert [raw.row["text"] for raw in rows(tmp_path)] == [f"row {i}" for i in range(150)]
    ranges = [h["range"] for h in hub.requested("/cdn/") if "range" in h]
    sent = sum(int(r.split("-")[1]) - int(r.split("=")[1].split("-")[0]) + 1 for r in ranges)
    assert sent < len(data), f"{sent} of {2 * len(data)} bytes were asked for"
    assert [file["rows"] for file in manifest(tmp_path)["files"]] == [150]


def test_a_busy_hub_is_asked_again(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"a.parquet": parquet([{"text": "a"}])})
    hub.fail("/api/datasets/", status=429, headers={"Retry-After": "0"})
    hub.fail("/resolve/", "HEAD", status=503, headers={"Retry-After": "0"})
    hub.fail("/cdn/", status=500, headers={"Retry-After": "0"})
    code, output = get(commit, files={"all": "*.parquet"})
    assert code == 0, output
    assert [raw.row for raw in rows(tmp_path)] == [{"text": "a"}]


def test_a_connection_cut_in_the_middle_of_a_file_is_resumed_where_it_broke(hub, get, tmp_path):
    data = lines(*(f"text {i} " + "x" * 24_000 for i in range(600)))
    commit = hub.commit("datasets", NAME, {"a.jsonl": data})
    hub.fail("/resolve/.*jsonl", cut_at=12_000_000)  # the client writes 10 MiB at a time
    code, output = get(commit)
    assert code == 0, output
    assert len(rows(tmp_path)) == 600
    asked = [headers.get("range") for headers in hub.requested("/resolve/.*jsonl")]
    assert asked[0] is None and asked[1].startswith("bytes="), asked
    assert int(asked[1].removeprefix("bytes=").rstrip("-")) == 10 << 20


def test_a_connection_that_is_reset_is_asked_again(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines(*map(str, range(500)))})
    hub.fail("/resolve/.*jsonl", cut_at=1000, reset=True)
    code, output = get(commit)
    assert code == 0, output
    assert len(rows(tmp_path)) == 500


def test_a_gated_dataset_names_its_page_and_the_variable(hub, get):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    hub.repositories["datasets", NAME].gated = True
    page = f"https://huggingface.co/datasets/{NAME}"
    assert_one_clear_error(*get(commit), "gated", page, "HF_TOKEN", commit)


def test_a_token_opens_a_gated_dataset_and_goes_to_the_hub_only(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"a.parquet": parquet([{"text": "a"}])})
    hub.repositories["datasets", NAME].gated = True
    code, output = get(commit, {"HF_TOKEN": hub.token}, files={"all": "*.parquet"})
    assert code == 0, output
    assert hub.token not in output
    for request in hub.requested("/cdn/"):
        assert "authorization" not in request
    written = b"".join(p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert hub.token.encode() not in written


def test_a_refused_token_is_not_printed(hub, get):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    code, output = get(commit, {"HF_TOKEN": "hf_another_secret"})
    assert_one_clear_error(code, output, "401", "HF_TOKEN")
    assert "hf_another_secret" not in output


def test_a_dataset_that_does_not_exist_is_named(get):
    assert_one_clear_error(*get("0" * 40), NAME, "does not exist", "HF_TOKEN")


def test_a_commit_that_does_not_exist_is_named(hub, get):
    hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    assert_one_clear_error(*get("0" * 40), NAME, "0" * 40, "no such commit")


def test_a_pattern_that_finds_nothing_lists_what_is_there(hub, get):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a"), "b.csv": b"x"})
    assert_one_clear_error(*get(commit, files={"all": "*.json"}), "*.json", "a.jsonl, b.csv")


def test_a_hub_that_stays_away_is_one_error_after_the_retries(hub, get):
    hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    hub.fail("/api/datasets/", times=99, status=503, headers={"Retry-After": "0"})
    assert_one_clear_error(*get("0" * 40), "503", "try again later")
    assert len(hub.requested("/api/datasets/")) == 5


def test_a_file_that_is_not_what_the_commit_says_is_refused(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a")})
    assert get(commit)[0] == 0
    blob = next((tmp_path / "hf").rglob("snapshots/*/a.jsonl")).resolve()
    blob.chmod(0o644)
    blob.write_bytes(lines("b"))
    assert_one_clear_error(*get(commit), "a.jsonl", "is not what", "run again")
    assert get(commit)[0] == 0
    assert [raw.row["text"] for raw in rows(tmp_path)] == ["a"]


def test_a_broken_line_in_a_hub_file_is_named(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"a.jsonl": lines("a") + b"{broken\n"})
    assert_one_clear_error(*get(commit), "a.jsonl:2", "not valid JSON")
    assert not (tmp_path / "data/raw/it").exists()


def test_the_datasets_library_reads_the_same_rows_from_the_same_commit(hub, get, tmp_path):
    commit = hub.commit("datasets", NAME, {"train.jsonl": lines("a", "b"), "README.md": b""})
    hub.commit("datasets", NAME, {"train.jsonl": lines("new")})
    assert get(commit)[0] == 0
    code = f"import datasets as d; print(*d.load_dataset({NAME!r}, revision={commit!r})['train'])"
    where = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "other"),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=where, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.stdout.strip() == " ".join(str(raw.row) for raw in rows(tmp_path)), done.stderr


CARD = b"""---
configs:
- config_name: easy
  data_files:
  - split: train
    path: easy/*.csv
  - split: dev
    path: held/easy.csv
- config_name: odd
  sep: "|"
  data_files: odd.csv
---
"""
FILES = {"README.md": CARD, "easy/1.csv": b"text\na\nb\n", "held/easy.csv": b"text\n007\n"}


def test_configurations_and_splits_are_the_datasets_own_and_rows_keep_their_lines(
    hub, get, tmp_path
):
    commit = hub.commit("datasets", NAME, FILES)
    hub.commit("datasets", NAME, {"README.md": b"moved"})
    keys = {"files": {}, "config": "easy", "splits": {"train": "train", "validation": "dev"}}
    code, output = get(commit, **keys)
    assert code == 0, output
    assert [(raw.split, raw.row["text"], raw.origin) for raw in rows(tmp_path)] == [
        ("train", "a", f"{NAME}@{commit}:easy/1.csv:2"),
        ("train", "b", f"{NAME}@{commit}:easy/1.csv:3"),
        ("validation", "007", f"{NAME}@{commit}:held/easy.csv:2"),
    ]
    assert [each["git_sha1"] for each in manifest(tmp_path)["files"]] == [
        hub_server.git_sha1(FILES[path]) for path in ("easy/1.csv", "held/easy.csv")
    ]


@pytest.mark.parametrize("max_rows", [None, 2])
def test_what_only_datasets_can_read_is_read_by_it(hub, get, tmp_path, max_rows):
    files = FILES | {"odd.csv": b"id|text\n007|NA\n008|b\n"}
    commit = hub.commit("datasets", NAME, files)
    keys = {"files": {}, "config": "odd", "splits": {"all": "train"}, "max_rows": max_rows}
    code, output = get(commit, **keys)
    assert code == 0, output
    assert [(raw.row, raw.origin) for raw in rows(tmp_path)] == [
        ({"id": "007", "text": "NA"}, f"{NAME}@{commit}:odd/train:1"),
        ({"id": "008", "text": "b"}, f"{NAME}@{commit}:odd/train:2"),
    ]


@pytest.mark.parametrize(
    ("files", "keys", "words"),
    [
        (FILES, {"config": "easy", "splits": {"all": "test"}}, ["no split 'test'", "train, dev"]),
        (FILES, {"config": "hard", "splits": {"all": "train"}}, ["hard"]),
        ({"questions.py": b"x", "README.md": b""}, {"splits": {"all": "train"}},
         ["questions.py", "is a program", "refs/convert/parquet"]),
    ],
)  # fmt: skip
def test_what_a_dataset_does_not_define_is_one_error(hub, get, files, keys, words):
    commit = hub.commit("datasets", NAME, files)
    assert_one_clear_error(*get(commit, files={}, **keys), *words)
