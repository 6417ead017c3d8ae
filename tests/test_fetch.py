"""Files of every kind through the real stage, good ones and bad ones."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import tracemalloc
import zipfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import datasets
import docx
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pypdf
import pytest
import zstandard
from docx.oxml import parse_xml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf.generic import DictionaryObject, NameObject, StreamObject

from finetune.params import Files
from finetune.records import read_rows
from finetune.web import read_warc_record
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
    ("a.json", json.dumps(ROWS[0]).encode(), ROWS[:1]),
    ("a.json", JSONL, ROWS),
    ("a.jsonl", json.dumps(ROWS, indent=1).encode(), ROWS),
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
    "list for a row": ("a.jsonl", b'{"a": 1}\n[1, 2]\n', "a.jsonl:2 is a list, not an object"),
    "list of numbers": ("a.jsonl", b"[1, 2]\n", "a.jsonl:1 is a int, not an object"),
    "broken list": ("a.json", b'[{"a": 1},\n{"a" 2}]' + b" " * 99, "not valid JSON: .* line 2"),
    "open list": ("a.json", b'[{"a": 1},\n{"a": "2', "not valid JSON: Unterminated .* line 2"),
    "no comma": ("a.json", b'[{"a": 1} {"a": 2}]', "',' expected at line 1"),
    "number for a row": ("a.jsonl", b"1\n", "a.jsonl:1 is a int, not an object"),
    "fraction for a row": ("a.jsonl", b"1.10\n", "a.jsonl:1 is a float, not an object"),
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
    "half of UTF-16": ("a.jsonl", JSONL.decode().encode("utf-16")[:-1], "a.jsonl is not utf-16"),
    "binary": ("a.txt", b"\x89PNG\r\n\x1a\n", "a.txt: byte 0 is not UTF-8"),
    "JSON in two": ("a.json", b'[{"a": 1}]\n[{"a": 1}]', "a.json is not valid JSON: Extra data"),
    "row of a list": ("a.json", b'[{"a": 1}, 2]', "a.json:2 is a int, not an object"),
    "too few fields": ("a.csv", b"a,b\n1,2\n3\n", "a.csv:3 has 1 fields, the header has 2"),
    "too many fields": ("a.csv", b'a,b\n"1\n1",2\n3,4,5\n', "a.csv:4 has 3 fields"),
    "open quote": ("a.csv", b'a,b\n1,"2\n3,4\n', "a.csv:2 is not valid CSV"),
    "column twice": ("a.csv", b"a,b,a\n1,2,3\n", "the column 'a' occurs twice"),
    "semicolons": ("a.csv", b"a;b\n1;2\n" + b"1\n2;3;4\n" * 3, "seems to be separated by ';'"),
    "two separators": ("a.csv", b"id;a,b\n1;2,5\n", "may be separated by ',' or ';'.* as in sep=;"),
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
    "packed parquet": ("a.parquet.gz", b"", ".parquet is compressed inside already"),
    "no zip": ("a.zip", b"PK", "a.zip is cut short or broken"),
    "tar": ("a.tar.gz", b"", "a.tar.gz is of no known format: unpack it"),
    "Word": ("a.doc", b"", "a.doc is of no known format: convert it, as with libreoffice"),
    "pickle": ("a.pkl", b"", "write it as Parquet"),
    "no workbook": ("a.xlsx", b"no", "a.xlsx is no whole workbook"),
    "no PDF": ("a.pdf", b"no", "a.pdf is no whole PDF"),
    "no DOCX": ("a.docx", b"no", "a.docx is no whole .docx"),
    "no Arrow": ("a.arrow", b"no", "a.arrow is not a whole Arrow or Feather file"),
    "cut bz2": ("a.jsonl.bz2", bz2.compress(JSONL)[:-5], "is cut short or broken"),
    "cut xz": ("a.jsonl.xz", lzma.compress(JSONL)[:-5], "is cut short or broken"),
    "page": ("a.html", b"<p>x", "a.html is a web page, which only a source can be"),
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
    with pytest.raises(ValueError, match="larger than 100 bytes; write it as a list"):
        read("a.json", json.dumps({"a": "x" * 200}, indent=1).encode())


def test_numbers_that_json_does_not_have_become_null_and_are_counted():
    what = {"number that is not finite, now null": 2}
    assert read("a.jsonl", b'{"a": NaN, "b": [-Infinity, 1]}\n') == (
        [{"a": None, "b": [None, 1]}],
        what,
    )
    table = pa.table({"a": [float("nan"), 1.0, float("inf")]})
    assert read("a.parquet", parquet(table)) == ([{"a": None}, {"a": 1.0}, {"a": None}], what)


DIALECTS = {
    "semicolons, all quoted": (b'"id";"text"\n"007";"a, ""b"""\n', "';', told by its first rows"),
    "sep=": (b'sep=;\r\nid;text\r\n007;"a, ""b"""\r\n', "as its first line"),
    "carriage returns": (b'id,text\r007,"a, ""b"""\r', ""),
    "tabs": (b'id\ttext\n007\ta, "b"\n', "'\\t', told by its first rows"),
    "backslashes": (b'id,text\n007,"a, \\"b\\""\n', "quotes behind backslashes"),
    "UTF-16": ('id;text\n007;"a, ""b"""\n'.encode("utf-16"), "file in utf-16"),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_csv_of_every_dialect_is_read_as_text_and_what_was_told_is_counted(case):
    data, told = DIALECTS[case]
    found, counts = read("a.csv", data)
    assert found == [{"id": "007", "text": 'a, "b"'}]
    assert told in " ".join(counts) and (told or not counts)


def test_an_encoding_that_is_named_is_used_and_counted():
    counts, file = Counter(), io.BytesIO("text\nCaf\xe9 \u2013 NA\n".encode("cp1252"))
    found = [r.row for r in readers.read(file, "a.csv", counts, (), "windows-1252")]
    assert found == [{"text": "Caf\xe9 \u2013 NA"}]
    assert counts == {"file in windows-1252, read as such": 1}


def test_a_row_behind_a_first_line_that_names_the_separator_has_its_own_line():
    with pytest.raises(ValueError, match="a.csv:4 has 1 fields, the header has 2"):
        read("a.csv", b"sep=;\na;b\n1;2\n3\n")


@pytest.mark.parametrize("suffix", [".xlsx", ".ods"])
def test_a_workbook_gives_the_rows_of_each_sheet_as_text(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    with pd.ExcelWriter(path) as writer:
        one = [["id", "n"], ["007", 7], [None, None], ["NA", 1.5]]
        for sheet, rows in {"one": one, "two": []}.items():
            pd.DataFrame(rows).to_excel(writer, sheet_name=sheet, header=False, index=False)
    with path.open("rb") as file:
        records = list(readers.read(file, path.name, Counter()))
    assert [record.row for record in records] == [{"id": "007", "n": "7"}, {"id": "NA", "n": "1.5"}]
    assert [record.place for record in records] == [":one:2", ":one:4"]


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}])
def test_feather_arrow_and_a_saved_dataset_are_read(options, tmp_path):
    table, file = pa.Table.from_pylist(ROWS), io.BytesIO()
    pa.feather.write_feather(table, file, **options)
    assert read("a.feather", file.getvalue()) == (ROWS, {})
    assert read("a.arrow", file.getvalue(), ("n",))[0] == [{"n": 1}, {"n": None}]
    for folder in ("train", "test"):
        datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved" / folder)
    splits = json.dumps({"splits": ["train", "test"]})
    (tmp_path / "saved/dataset_dict.json").write_text(splits, encoding="utf-8")
    code, output = fetch(tmp_path, "files", source("saved"))
    assert code == 0, output
    assert [(r.split, r.row) for r in rows(tmp_path)] == [
        (split, row) for split in ("test", "train") for row in ROWS
    ]


def test_packed_files_are_read_by_the_name_inside(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("__MACOSX/._rows.jsonl", b"\0")
        archive.writestr("in/rows.jsonl", JSONL)
    assert read("a.zip", file.getvalue()) == (ROWS, {})
    assert read("a.jsonl.bz2", bz2.compress(JSONL)) == (ROWS, {})
    assert read("a.jsonl.xz", lzma.compress(JSONL)) == (ROWS, {})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("more.csv", b"")
    with pytest.raises(ValueError, match="a.zip has 2 files, not one file to read: unpack it"):
        read("a.zip", file.getvalue())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_a_columnar_file_alone_in_a_zip_is_read(suffix):
    table, inner, packed = pa.Table.from_pylist(ROWS), io.BytesIO(), io.BytesIO()
    if suffix == ".parquet":
        pq.write_table(table, inner)
    else:
        with pa.ipc.new_file(inner, table.schema) as writer:
            writer.write_table(table)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"in/rows{suffix}", inner.getvalue())
    assert read("a.zip", packed.getvalue()) == (ROWS, {})
    found, _ = read("a.zip", packed.getvalue(), columns=tuple(ROWS[0])[:1])
    assert found == [dict([next(iter(row.items()))]) for row in ROWS]


def test_a_zip_whose_headers_contradict_each_other_is_one_error():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows.jsonl", JSONL)
    data = file.getvalue().replace(b"rows.jsonl", b"ROWS.jsonl", 1)
    with pytest.raises(ValueError, match="a.zip cannot be unpacked .*: unpack it yourself"):
        read("a.zip", data)


def test_a_list_of_any_length_is_read_a_part_at_a_time():
    big = [{"text": "x" * 1_000, "n": n} for n in range(20_000)]
    data = json.dumps(big).encode()
    tracemalloc.start()
    count = sum(1 for _ in readers.read(io.BytesIO(data), "a.json", Counter()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < len(data) / 2


def test_a_word_file_gives_headings_paragraphs_and_tables():
    document, file = docx.Document(), io.BytesIO()
    document.add_heading("Notice", level=2)
    document.add_paragraph("Within 56 days.")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    document.save(file)
    text = "## Notice\n\nWithin 56 days.\n\na | b"
    row = {"text": text, "path": "d/n.docx", "title": "n"}
    assert read("d/n.docx", file.getvalue())[0] == [row]


WORD = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)
BOX = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"


def _run(text):
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def _word_text(*blocks):
    """The text of a Word file of these blocks, given as XML."""
    document, file = docx.Document(), io.BytesIO()
    for block in blocks:
        added = parse_xml(block.replace(">", f" {WORD}>", 1))
        document.element.body.insert_element_before(added, "w:sectPr")
    document.save(file)
    return read("a.docx", file.getvalue())[0][0]["text"]


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        (f"<w:ins>{_run('NOT ')}</w:ins>", "NOT "),
        ("<w:del><w:r><w:delText>OLD </w:delText><w:br/></w:r></w:del>", ""),
        (f"<w:moveFrom>{_run('away ')}</w:moveFrom>", ""),
        (f"<w:moveTo>{_run('here ')}</w:moveTo>", "here "),
        (f"<w:sdt><w:sdtPr/><w:sdtContent>{_run('Ann ')}</w:sdtContent></w:sdt>", "Ann "),
        ("<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>"
         f"{_run('Click here to enter text.')}</w:sdtContent></w:sdt>", ""),
        (f'<w:fldSimple w:instr="REF x">{_run("Section 4 ")}</w:fldSimple>', "Section 4 "),
        (f"<w:r><w:instrText>PAGE</w:instrText></w:r>{_run('7 ')}", "7 "),
        (f"<w:smartTag>{_run('Paris ')}</w:smartTag>", "Paris "),
        ("<m:oMath><m:r><m:t>E=m</m:t></m:r><m:sSup><m:e><m:r><m:t>c</m:t></m:r></m:e>"
         "<m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup></m:oMath>", "E=mc^2"),
        ("<m:oMath><m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r>"
         "</m:den></m:f></m:oMath>", "(a+b)/2"),
        ("<w:r><w:t>co</w:t><w:noBreakHyphen/><w:t>op</w:t><w:tab/><w:br/></w:r>", "co-op\t\n"),
        ("<w:r><w:footnoteReference/></w:r>", ""),
        ("<w:r><mc:AlternateContent><mc:Choice>" + BOX + "</mc:Choice><mc:Fallback>" + BOX
         + "</mc:Fallback></mc:AlternateContent></w:r>", "\nboxed\n"),
    ],
)  # fmt: skip
def test_a_word_paragraph_reads_as_with_all_changes_accepted(xml, text):
    paragraph = f"<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>{_run('It is ')}{xml}{_run('so')}"
    assert _word_text(paragraph + "</w:p>") == f"It is {text}so"


def test_a_word_file_keeps_the_blocks_of_a_content_control_but_no_table_of_contents():
    block = f"<w:sdtContent><w:p>{_run('Within 56 days.')}</w:p></w:sdtContent></w:sdt>"
    contents = (
        '<w:sdt><w:sdtPr><w:docPartObj><w:docPartGallery w:val="Table of Contents"/></w:docPartObj>'
        f"</w:sdtPr><w:sdtContent><w:p>{_run('Notice 4')}</w:p></w:sdtContent></w:sdt>"
    )
    assert _word_text("<w:sdt>" + block, contents) == "Within 56 days."


def test_a_word_table_has_a_merged_cell_once_and_the_table_within_a_cell():
    document, file = docx.Document(), io.BytesIO()
    table = document.add_table(rows=3, cols=2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "both columns"
    table.cell(1, 0).merge(table.cell(2, 0)).text = "both rows"
    table.cell(1, 1).add_table(1, 1).cell(0, 0).text = "inner"
    table.cell(2, 1).text = "c"
    document.save(file)
    text = read("a.docx", file.getvalue())[0][0]["text"]
    assert text == "both columns\nboth rows | inner\n | c"


def test_a_pdf_gives_its_text_and_a_scan_names_the_remedy():
    file = io.BytesIO()
    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(200, 200)
    writer.write(file)
    with pytest.raises(ValueError, match="holds no text, it is a scan: read it with ocrmypdf"):
        read("a.pdf", file.getvalue())
    font = DictionaryObject({NameObject("/Type"): NameObject("/Font"),
                             NameObject("/Subtype"): NameObject("/Type1"),
                             NameObject("/BaseFont"): NameObject("/Helvetica")})  # fmt: skip
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    content = StreamObject()
    content.set_data(b"BT /F1 12 Tf 20 100 Td (Within 56 days) Tj ET")
    page[NameObject("/Contents")] = writer._add_object(content)
    file = io.BytesIO()
    writer.write(file)
    assert read("a.pdf", file.getvalue())[0][0]["text"] == "Within 56 days"


def test_a_web_page_goes_into_the_capture_with_a_row_that_names_its_place(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/a.html").write_bytes(b"<h1>T</h1><p>one")
    (tmp_path / "pages/b.txt").write_text("two", encoding="utf-8")
    code, output = fetch(tmp_path, "files", source("pages", all="*"))
    assert code == 0, output
    page, text = rows(tmp_path)
    capture = tmp_path / "data/raw/it/capture.warc.gz"
    assert read_warc_record(capture, page.row["warc_offset"], 99).body == b"<h1>T</h1><p>one"
    assert page.row["path"] == page.origin == "pages/a.html" and text.row["text"] == "two"


def test_all_files_that_cannot_be_read_are_named_at_once_each_with_its_remedy(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a.doc", "b.rar", "c.jsonl"):
        (tmp_path / "d" / name).write_bytes(JSONL)
    result = fetch(tmp_path, "files", source("d", all="*"))
    assert_one_clear_error(*result, "2 files cannot be read: d/a.doc", "libreoffice", "d/b.rar")
    for name in ("a.doc", "b.rar"):
        (tmp_path / "d" / name).rename(tmp_path / "d" / f"{name}.jsonl")
        (tmp_path / "d" / f"{name}.jsonl").write_bytes(b"{")
    result = fetch(tmp_path, "files", source("d", all="*"))
    assert_one_clear_error(*result, "2 files", "d/a.doc.jsonl:1", "d/b.rar.jsonl:1")


def test_a_link_to_nothing_is_counted_and_told(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.jsonl").write_bytes(JSONL)
    (tmp_path / "d/b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    code, output = fetch(tmp_path, "files", source("d", all="*.jsonl"))
    assert code == 0 and "1 x link to a file that is not there, left out" in output
    assert manifest(tmp_path)["counts"]["link to a file that is not there, left out"] == 1


def test_what_only_the_main_repository_has_is_named_by_its_absolute_path(tmp_path):
    main = tmp_path / "main"
    (main / "data").mkdir(parents=True)
    (main / "data/a.jsonl").write_bytes(JSONL)
    (tmp_path / "temp").mkdir()
    result = fetch(tmp_path / "temp", "files", source("data/a.jsonl"), DVC_ROOT=str(main))
    assert_one_clear_error(*result, "data/a.jsonl does not exist", "--temp", f"{main}/data/a.jsonl")


def test_a_source_that_params_no_longer_name_is_removed_and_nothing_else(tmp_path):
    raw = tmp_path / "data/raw"
    for name, text in {"old": '{"source": "old", "kind": "files"}', "mine": "{}"}.items():
        (raw / name).mkdir(parents=True)
        (raw / name / "manifest.json").write_text(text, encoding="utf-8")
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    code, output = fetch(tmp_path, "files", source("a.jsonl"))
    assert code == 0 and "removed data/raw/old" in output and "data/raw/mine is no" in output
    assert sorted(each.name for each in raw.iterdir()) == ["it", "mine"]


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


WRITTEN = '{"a": 1.10, "b": [0.00001, {"c": 1E5}], "d": 12345678901234567.25, "e": 1.5, "f": true}'


@pytest.mark.parametrize("form", ["a.jsonl", "a.json", "list.json"])
def test_numbers_of_json_are_kept_as_they_are_written(form, tmp_path):
    text = f"[{WRITTEN}]" if form == "list.json" else WRITTEN
    (tmp_path / form).write_text(text, encoding="utf-8")
    assert fetch(tmp_path, "files", source(form))[0] == 0
    [found] = rows(tmp_path)
    written = {"a": "1.10", "b": ["0.00001", {"c": "1E5"}], "d": "12345678901234567.25"}
    assert found.row == {**written, "e": 1.5, "f": True}


def test_a_number_beyond_all_floats_is_still_none():
    assert read("a.jsonl", b'{"a": 1e999}\n')[0] == [{"a": None}]


@pytest.mark.parametrize("column", ["tools", "functions", "tool_calls", "function_call"])
def test_numbers_in_tools_and_their_calls_stay_numbers(column):
    value = f'{{"{column}": [{{"arguments": {{"price": 1.10, "of": [1e5]}}}}]}}'
    expected = {column: [{"arguments": {"price": 1.1, "of": [1e5]}}]}
    found = read("a.jsonl", f'{value}\n{{"messages": [{value}]}}\n'.encode())[0]
    assert found == [expected, {"messages": [expected]}]
    assert type(found[0][column][0]["arguments"]["price"]) is float


SINGLE = pa.float32()
NARROW = {
    "single": pa.array([4.99, None], SINGLE),
    "half": pa.array([2.1, 0.5], pa.float16()),
    "list": pa.array([[4.99, None], None], pa.list_(SINGLE)),
    "pair": pa.array([[4.99, 0.1], None], pa.list_(SINGLE, 2)),
    "in": pa.array(
        [{"n": 1, "x": [{"y": 4.99}]}, None],
        pa.struct({"n": pa.int64(), "x": pa.list_(pa.struct({"y": SINGLE}))}),
    ),
    "map": pa.array([[("k", 4.99)], None], pa.map_(pa.string(), SINGLE)),
    "category": pa.array([4.99, None], SINGLE).dictionary_encode(),
    "double": pa.array([4.989999771118164, 1e-5], pa.float64()),
}
SHORTEST = [
    {
        "single": 4.99,
        "half": 2.1,
        "list": [4.99, None],
        "pair": [4.99, 0.1],
        "in": {"n": 1, "x": [{"y": 4.99}]},
        "map": [["k", 4.99]],
        "category": 4.99,
        "double": 4.989999771118164,
    },
    {**dict.fromkeys(NARROW), "half": 0.5, "double": 1e-5},
]


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
def test_numbers_of_16_and_32_bits_have_the_digits_that_were_written(suffix):
    columns, file = dict(NARROW), io.BytesIO()
    if suffix == "arrow":  # Parquet has no such types
        tensors = pa.array([[4.99, 0.1], None], pa.list_(SINGLE, 2))
        columns["tensor"] = pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(SINGLE, (2,)), tensors
        )
        kinds = pa.array([0, 1], pa.int8()), [pa.array([0.5]), pa.array([7])]
        columns["union"] = pa.UnionArray.from_dense(
            kinds[0], pa.array([0, 0], pa.int32()), kinds[1]
        )
        with pa.ipc.new_file(file, pa.table(columns).schema) as writer:
            writer.write_table(pa.table(columns))
    elif suffix == "feather":
        pyarrow.feather.write_feather(pa.table(columns), file)
    found = read(f"a.{suffix}", file.getvalue() or parquet(pa.table(columns)))[0]
    more = [{"tensor": [4.99, 0.1], "union": 0.5}, {"tensor": None, "union": 7}]
    more = more if suffix == "arrow" else [{}, {}]
    assert found == [each | extra for each, extra in zip(SHORTEST, more, strict=True)]


def test_truth_values_of_a_workbook_are_written_as_in_json(tmp_path):
    path = tmp_path / "a.xlsx"
    table = pd.DataFrame({"mixed": [True, "True", 1.5], "pure": [True, False, True]})
    table.to_excel(path, index=False)
    found = read("a.xlsx", path.read_bytes())[0]
    assert [each["mixed"] for each in found] == ["true", "True", "1.5"]
    assert [each["pure"] for each in found] == ["true", "false", "true"]


def called(name, arguments, properties):
    """A row whose conversation calls a tool."""
    function = {"name": name, "arguments": arguments}
    tool = {"name": name, "parameters": {"type": "object", "properties": properties}}
    said = [{"content": None, "tool_calls": [{"function": function}], "function_call": function}]
    return {"messages": said, "tools": [tool], "extra": {name: None, "at": 1}}


def test_tools_and_calls_of_parquet_have_no_keys_of_other_rows():
    one = called("weather", {"city": "Rome"}, {"city": {"enum": ["Rome", None]}})
    two = called("add", {"a": 1, "in": {"b": 2}}, {"a": {"type": "integer"}})
    found = read("a.parquet", parquet(pa.Table.from_pylist([one, two])))[0]
    for row, expected in zip(found, [one, two], strict=True):
        assert row["tools"] == expected["tools"]
        assert row["messages"] == expected["messages"]
        assert row["extra"] == {"weather": None, "add": None, "at": 1} | expected["extra"]


def test_a_null_that_json_writes_into_a_call_stays():
    row = called("weather", {"city": None}, {"city": {"default": None}})
    assert read("a.jsonl", json.dumps(row).encode())[0] == [row]


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
    parts = files.find_parts(Files(**source(tmp_path, train="a.*", test="b.*")), Counter())
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
    cc = b'<footer><a rel="license" href="https://creativecommons.org/licenses/%s/4.0/">'
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
