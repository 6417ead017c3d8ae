"""Files of every kind through the real stage, good ones and bad ones."""

import csv
import gzip
import hashlib
import io
import json
import tracemalloc
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.params import Files
from finetune.records import read_rows
from stages.fetch import captures, files, json_rows, readers, streams
from tests.fetching import assert_one_clear_error, fetch, manifest, rows


def source(path, **patterns):
    return {"path": str(path), "files": patterns, "license": "CC0-1.0", "evidence": "README"}


def read(name, data, columns=()):
    """The rows of a file of that name and content, and what was mended."""
    repairs = Counter()
    found = [r.row for r in readers.read(io.BytesIO(data), name, repairs, columns)]
    return found, dict(repairs)


def parquet(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


ROWS = [{"text": "a\u00e9\u4e2d", "n": 1}, {"text": 'two\nlines, "quoted"', "n": None}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
STRINGS = [{"text": row["text"], "n": str(row["n"] or "")} for row in ROWS]


def table(delimiter):
    file = io.StringIO()
    writer = csv.DictWriter(file, ["text", "n"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(STRINGS)
    return file.getvalue().encode()


FORMATS = [
    ("a.jsonl", JSONL, ROWS),
    ("a.ndjson", b"\xef\xbb\xbf" + JSONL.replace(b"}\n", b"}\r\n\r\n"), ROWS),
    ("a.jsonl", JSONL.rstrip(), ROWS),
    ("a.JSON", json.dumps(ROWS).encode(), ROWS),
    ("a.json", json.dumps({"data": ROWS}).encode(), ROWS),
    ("a.json", json.dumps({"x": ROWS[0]}).encode(), [{"key": "x", **ROWS[0]}]),
    ("a.json", json.dumps({"t": {"0": "a", "1": "b"}}).encode(), [{"t": "a"}, {"t": "b"}]),
    ("a.json", json.dumps(ROWS[0], indent=2).encode(), ROWS[:1]),
    ("a.csv", table(","), STRINGS),
    ("a.csv", b"\xef\xbb\xbf" + table(","), STRINGS),
    ("a.tsv", table("\t"), STRINGS),
    ("a.csv", b",text\n007,None\n", [{"column_1": "007", "text": "None"}]),
    ("a.parquet", parquet(pa.Table.from_pylist(ROWS)), ROWS),
    ("a.txt", b"hello", [{"text": "hello", "path": "a.txt", "title": "a"}]),
    ("d/b.tar.py", b"x = 1", [{"text": "x = 1", "path": "d/b.tar.py", "title": "b"}]),
    ("a.jsonl.gz", gzip.compress(JSONL), ROWS),
    ("a.jsonl.gz", gzip.compress(JSONL[:20]) + gzip.compress(JSONL[20:]), ROWS),
    ("a.csv.zst", zstandard.compress(table(",")), STRINGS),
    ("a.md.gz", gzip.compress(b"# T"), [{"text": "# T", "path": "a.md.gz", "title": "a"}]),
]


@pytest.mark.parametrize("case", range(len(FORMATS)), ids=[case[0] for case in FORMATS])
def test_every_format_gives_its_rows(case):
    name, data, expected = FORMATS[case]
    assert read(name, data) == (expected, {})


BROKEN = {
    "empty jsonl": ("a.jsonl", b"", "a.jsonl is empty"),
    "blank jsonl": ("a.jsonl", b"\n\n \n", "a.jsonl is empty"),
    "empty json": ("a.json", b" ", "a.json is empty"),
    "empty list": ("a.json", b"[]", "a.json is empty"),
    "empty csv": ("a.csv", b"", "a.csv is empty"),
    "header only": ("a.csv", b"a,b\n", "a.csv is empty"),
    "empty gzip": ("a.jsonl.gz", b"", "a.jsonl.gz is empty"),
    "broken line": ("a.jsonl", JSONL + b'{"a": }\n', "a.jsonl:3 is not valid JSON"),
    "half a line": ("a.jsonl", JSONL[:-9], "a.jsonl:2 is not valid JSON"),
    "list for a row": ("a.jsonl", b"[1, 2]\n", "a.jsonl:1 is a list, not an object"),
    "number for a row": ("a.jsonl", b"1\n", "a.jsonl:1 is a int, not an object"),
    "empty object": ("a.jsonl", b"{}\n", "a.jsonl:1 is an empty object"),
    "key twice": ("a.jsonl", b'{"a": 1, "a": 2}\n', "a.jsonl:1 .* the key 'a' occurs twice"),
    "deep": ("a.jsonl", b'{"a":' + b"[" * 99_999 + b"\n", "a.jsonl:1 is nested too deeply"),
    "deep json": ("a.json", b"[" * 99_999 + b"]" * 99_999, "nested too deeply"),
    "rather deep": (
        "a.jsonl",
        b'{"a":' + b"[" * 100 + b"]" * 100 + b"}\n",
        "nested too deeply",
    ),
    "huge number": ("a.jsonl", b'{"a": ' + b"9" * 9_999 + b"}\n", "a.jsonl:1 is not valid JSON"),
    "not UTF-8": ("a.jsonl", JSONL + b'{"a": "\xff"}\n', f"a.jsonl:3: byte {len(JSONL) + 7} is"),
    "latin-1": ("a.csv", "text\ncr\u00e8me\n".encode("latin-1"), "a.csv:2: byte 7 is not UTF-8"),
    "UTF-16": ("a.jsonl", JSONL.decode().encode("utf-16"), "looks like UTF-16"),
    "binary": ("a.txt", b"\x89PNG\r\n\x1a\n", "a.txt: byte 0 is not UTF-8"),
    "JSON in two": ("a.json", b'[{"a": 1}]\n[{"a": 1}]', "a.json is not valid JSON: Extra data"),
    "row of a list": ("a.json", b'[{"a": 1}, 2]', "a.json:2 is a int, not an object"),
    "too few fields": ("a.csv", b"a,b\n1,2\n3\n", "a.csv:3 has 1 fields, the header has 2"),
    "too many fields": ("a.csv", b'a,b\n"1\n1",2\n3,4,5\n', "a.csv:4 has 3 fields"),
    "open quote": ("a.csv", b'a,b\n1,"2\n3,4\n', "a.csv:2 is not valid CSV"),
    "column twice": ("a.csv", b"a,b,a\n1,2,3\n", "the column 'a' occurs twice"),
    "semicolons": ("a.csv", b"a;b\n1;2\n", "seems to be separated by ';'"),
    "no parquet": ("a.parquet", b"text\n", "a.parquet is not a whole Parquet file"),
    "cut parquet": ("a.parquet", parquet(pa.table({"a": [1]}))[:-9], "not a whole Parquet file"),
    "columns twice": (
        "a.parquet",
        parquet(pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"])),
        "a.parquet has the column 'a' twice",
    ),
    "empty parquet": ("a.parquet", parquet(pa.table({"a": pa.array([], "int64")})), "is empty"),
    "cut gzip": ("a.jsonl.gz", gzip.compress(JSONL * 99)[:-9], "a.jsonl.gz is cut short or broken"),
    "no gzip": ("a.jsonl.gz", JSONL, "a.jsonl.gz is cut short or broken"),
    "rest": ("a.jsonl.gz", gzip.compress(JSONL) + b"rest", "a.jsonl.gz is cut short or broken"),
    "cut zstd": ("a.jsonl.zst", zstandard.compress(JSONL * 99)[:-5], "is cut short or broken"),
    "no zstd": ("a.jsonl.zst", JSONL, "a.jsonl.zst is cut short or broken"),
    "packed parquet": ("a.parquet.gz", b"", "Parquet is compressed inside already"),
    "zip": ("a.zip", b"PK", "a.zip is of no known format"),
    "tar": ("a.tar.gz", b"", "a.tar.gz is of no known format"),
    "no suffix": ("data", b"", "data is of no known format"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_error_that_names_it(case):
    name, data, message = BROKEN[case]
    with pytest.raises(ValueError, match=message):
        read(name, data)


def test_a_line_of_a_hundred_megabytes_is_refused_without_being_read(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(JSONL + b'{"text": "')
        file.seek(100_000_000)
        file.write(b'"}\n')
    tracemalloc.start()
    with path.open("rb") as file, pytest.raises(ValueError, match=":3 is longer than 16,777,216"):
        list(readers.read(file, "a.jsonl", Counter()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * streams.MAX_RECORD_BYTES


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("content", [b"\n", b'{"a": "%s"}\n' % (b"x" * 9_990)])
def test_a_compression_bomb_stops_early(compress, content, monkeypatch):
    monkeypatch.setattr(streams, "BOMB_BYTES", 1 << 20)
    data = compress(content * (12_000_000 // len(content)))
    suffix = ".gz" if compress is gzip.compress else ".zst"
    with pytest.raises(ValueError, match="unpacks to more than 200 times its size"):
        read(f"a.jsonl{suffix}", data)


def test_a_json_file_that_would_not_fit_names_the_remedy(monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_JSON_BYTES", 100)
    with pytest.raises(ValueError, match="larger than 100 bytes; write it as JSONL"):
        read("a.json", json.dumps([{"a": "x" * 200}]).encode())


def test_numbers_that_json_does_not_have_become_null_and_are_counted():
    what = {"number that is not finite, now null": 2}
    assert read("a.jsonl", b'{"a": NaN, "b": [-Infinity, 1]}\n') == (
        [{"a": None, "b": [None, 1]}],
        what,
    )
    table = pa.table({"a": [float("nan"), 1.0, float("inf")]})
    assert read("a.parquet", parquet(table)) == ([{"a": None}, {"a": 1.0}, {"a": None}], what)


def test_half_a_surrogate_pair_is_mended_and_counted():
    found, repairs = read("a.jsonl", rb'{"a": "x\ud83d y", "b": "\ud83d\ude00"}' + b"\n")
    assert found == [{"a": "x\ufffd y", "b": "\U0001f600"}]
    assert repairs == {"half of a surrogate pair, now U+FFFD": 1}


def test_columns_of_any_type_become_json():
    table = pa.table(
        {
            "when": pa.array([0], pa.timestamp("s")),
            "day": pa.array([0], pa.date32()),
            "price": pa.array([Decimal("1.00")]),
            "bytes": pa.array([b"text"]),
            "image": pa.array([b"\xff\xd8"]),
            "nested": pa.array([[{"lang": "en", "text": "a"}]]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "category": pa.array(["a"]).dictionary_encode(),
        }
    )
    assert read("a.parquet", parquet(table))[0] == [
        {
            "when": "1970-01-01T00:00:00",
            "day": "1970-01-01",
            "price": "1.00",
            "bytes": "text",
            "image": "/9g=",
            "nested": [{"lang": "en", "text": "a"}],
            "map": [["k", 1]],
            "category": "a",
        }
    ]


def test_a_parquet_value_that_cannot_be_read_is_named_by_its_rows():
    text = pa.array([b"a", b"\xff"]).view(pa.string())
    with pytest.raises(ValueError, match="a.parquet: one of rows 1 to 2 cannot be read"):
        read("a.parquet", parquet(pa.table({"text": text})))


def test_two_rows_with_one_id_are_two_rows_each_with_its_own_origin(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', encoding="utf-8"
    )
    assert fetch(tmp_path, "files", source("a.jsonl"))[0] == 0
    assert [(r.origin, r.row["text"]) for r in rows(tmp_path)] == [
        ("a.jsonl:1", "a"),
        ("a.jsonl:2", "b"),
    ]


def test_a_folder_is_read_by_split_in_a_fixed_order_without_hidden_files(tmp_path):
    folder = tmp_path / "data"
    for name in ("b/2.jsonl", "a/1.jsonl", "c.csv", ".hidden/3.jsonl", ".gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(
            "text\nc\n" if name.endswith("csv") else f'{{"text": "{name}"}}\n', encoding="utf-8"
        )
    patterns = {"train": "**/*.jsonl", "test": "c.*"}
    code, output = fetch(tmp_path, "files", source("data", **patterns))
    assert code == 0, output
    assert [(r.split, r.origin) for r in rows(tmp_path)] == [
        ("test", "data/c.csv:2"),
        ("train", "data/a/1.jsonl:1"),
        ("train", "data/b/2.jsonl:1"),
    ]
    first = manifest(tmp_path)["files"][0]
    assert first == {
        "path": "data/c.csv",
        "split": "test",
        "rows": 1,
        "bytes": 7,
        "sha256": hashlib.sha256(b"text\nc\n").hexdigest(),
    }


def test_empty_documents_among_others_are_counted(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "code/main.py").write_text("print()\n", encoding="utf-8")
    code, output = fetch(tmp_path, "files", source("code", all="*.py"))
    assert code == 0, output
    assert manifest(tmp_path)["counts"] == {"rows": 1, "empty document, left out": 1}
    assert "1 x empty document, left out" in output


def test_the_same_files_give_the_same_bytes_and_no_machine_path(tmp_path):
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(JSONL)
        assert fetch(folder, "files", source("a.jsonl"))[0] == 0
        found.append({p.name: p.read_bytes() for p in (folder / "data/raw/it").iterdir()})
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in b"".join(found[0].values())


@pytest.mark.parametrize(
    ("path", "patterns", "words"),
    [
        ("none.jsonl", {}, ["none.jsonl", "does not exist"]),
        ("data", {}, ["data is a folder", "files"]),
        ("data/a.jsonl", {"all": "*"}, ["is a file"]),
        ("data", {"all": "*.csv"}, ["no file that matches files.all: *.csv"]),
        ("data", {"all": "../*.jsonl"}, ["must stay inside data"]),
        ("data", {"all": "/etc/*.txt"}, ["must stay inside data"]),
        ("data", {"all": "out*"}, ["outside.jsonl is a link out of data"]),
        ("data", {"all": "folder/*"}, ["is a link out of data"]),
        ("data", {"train": "a.*", "test": "*a.jsonl"}, ["belongs to two splits: test and train"]),
        ("data/broken.jsonl", {}, ["data/broken.jsonl:1 is not valid JSON"]),
    ],
)
def test_files_that_cannot_be_read_are_one_error_and_nothing_is_left(
    tmp_path, path, patterns, words
):
    outside = tmp_path / "elsewhere"
    (tmp_path / "data").mkdir()
    outside.mkdir()
    for each in (outside / "x.jsonl", tmp_path / "data/a.jsonl"):
        each.write_bytes(JSONL)
    (tmp_path / "data/broken.jsonl").write_text("{", encoding="utf-8")
    (tmp_path / "data/outside.jsonl").symlink_to(outside / "x.jsonl")
    (tmp_path / "data/folder").symlink_to(outside)
    assert_one_clear_error(*fetch(tmp_path, "files", source(path, **patterns)), *words)
    assert not list((tmp_path / "data").glob("raw/*"))


def test_a_link_inside_the_folder_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    parts = files.find_parts(Files(**source(tmp_path, train="a.*", test="b.*")))
    assert [(part.split, part.name) for part in parts] == [
        ("test", f"{tmp_path.name}/b.jsonl"),
        ("train", f"{tmp_path.name}/a.jsonl"),
    ]


def warc(*pages, name="crawl.warc.gz"):
    file = io.BytesIO()
    writer = captures.CaptureWriter(file)
    for url, body, kind in pages:
        page = captures.Page(url, 200, [("Content-Type", kind)], body, "", 0.0, 0.0)
        writer.write(page)
    return file.getvalue()


def test_a_warc_file_is_taken_as_the_capture_with_the_licences_of_its_pages(tmp_path):
    cc = b'<a rel="license" href="https://creativecommons.org/licenses/%s/4.0/">'
    (tmp_path / "w").mkdir()
    one = warc(
        ("http://a/1", b"<p>one" + cc % b"by", "text/html"),
        ("http://a/2", b"\0", "image/png"),
        ("http://a/4", b"<p>four" + cc % b"by-nc", "text/html"),
    )
    two = warc(("http://a/3", b"<p>three", "text/html; charset=utf-8"))
    (tmp_path / "w/1.warc.gz").write_bytes(one)
    (tmp_path / "w/2.warc.gz").write_bytes(two)
    it = source("w", all="*.warc.gz") | {"license": "CC0-1.0 OR CC-BY-4.0"}
    code, output = fetch(tmp_path, "files", it)
    assert code == 0, output
    assert (tmp_path / "data/raw/it/capture.warc.gz").read_bytes() == one + two
    found = [(r.row["url"], r.row["warc_offset"], r.license, r.evidence) for r in rows(tmp_path)]
    assert found == [
        ("http://a/1", 0, "CC-BY-4.0", "http://a/1 (rel=license)"),
        ("http://a/3", len(one), "CC0-1.0 OR CC-BY-4.0", "README"),
    ]
    assert manifest(tmp_path)["counts"] == {
        "rows": 2,
        "answer that is no HTML page, left out": 1,
        "licence not allowed: CC-BY-NC-4.0": 1,
    }


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["no HTML page"]),
        (b"no warc", ["a.warc.gz is cut short or broken"]),
        (gzip.compress(b"no warc"), ["is no WARC file"]),
        (warc(("http://a/1", b"<p>one" * 999, "text/html"))[:-30], ["is cut short or broken"]),
        (warc(("http://a/1", b"\0", "image/png")), ["no HTML page", "left out"]),
    ],
    ids=["empty", "text", "packed text", "cut", "picture"],
)
def test_a_bad_warc_file_is_one_error(tmp_path, data, words):
    (tmp_path / "a.warc.gz").write_bytes(data)
    assert_one_clear_error(*fetch(tmp_path, "files", source("a.warc.gz")), *words)


SUFFIXES = ["jsonl", "json", "csv", "tsv", "parquet", "txt", "py"]
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(st.binary(max_size=300), st.sampled_from(SUFFIXES), st.sampled_from(["", ".gz", ".zst"]))
def test_any_bytes_give_rows_or_one_error(data, suffix, packed):
    try:
        found, _ = read(f"a.{suffix}{packed}", data)
    except ValueError as error:
        assert str(error).startswith("a.")
    else:
        json.dumps(found, allow_nan=False).encode()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(
    st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), min_size=1, max_size=5
)


@QUICK
@given(OBJECTS, st.sampled_from(["", ".gz", ".zst"]), st.booleans())
def test_what_json_can_say_is_read_as_it_was_written(objects, packed, ascii_only):
    text = "".join(
        json.dumps(each, ensure_ascii=ascii_only, allow_nan=False) + "\n" for each in objects
    )
    data = text.encode("utf-8", "surrogatepass")
    data = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed](data)
    found, repairs = read(f"a.jsonl{packed}", data)
    assert repairs or found == objects


@QUICK
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_csv_can_say_is_read_as_it_was_written(values):
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([["a", "b"], *values])
    data = file.getvalue().encode("utf-8", "replace")
    lines = [
        [v.encode("utf-8", "replace").decode().replace("\r\n", "\n") for v in row] for row in values
    ]
    expected = [dict(zip("ab", row, strict=True)) for row in lines if any(row)]
    if expected:
        assert read("a.csv", data)[0] == expected


@QUICK
@given(st.data())
def test_a_parquet_file_with_any_bytes_changed_gives_rows_or_one_error(data):
    good = parquet(pa.table({"text": ["a", "bc"] * 9, "n": list(range(18))}))
    broken = bytearray(good)
    for at in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=4)):
        broken[at] = data.draw(st.integers(0, 255))
    try:
        read("a.parquet", bytes(broken))
    except ValueError as error:
        assert str(error).startswith("a.parquet")


def test_a_raw_folder_is_read_back_in_order_whatever_its_size(tmp_path):
    lines = "".join(json.dumps({"text": f"{i}"}) + "\n" for i in range(2_500))
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    assert fetch(tmp_path, "files", source("a.jsonl"))[0] == 0
    found = [raw.row["text"] for raw in read_rows(Path(tmp_path / "data/raw/it"))]
    assert found == [str(i) for i in range(2_500)]
