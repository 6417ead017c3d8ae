"""What fetch and preprocess both read of the web."""

import io
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from finetune import patience
from finetune.web import is_html, read_json_ld, read_warc_record, read_warc_records
from stages.fetch import captures


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "capture.warc.gz"
    with path.open("wb") as file:
        writer = captures.CaptureWriter(file)
        for n in range(2):
            kind = [("Content-Type", "text/html; charset=utf-8")]
            writer.write(captures.Page(f"http://a/{n}", 200, kind, b"<p>%d" % n, "", 0.0, 0.0))
    return path


def test_a_record_is_found_again_by_the_offset_that_reading_all_gives(capture):
    records = list(read_warc_records(io.BytesIO(capture.read_bytes()), "c", 100))
    assert [(r.url, r.status, r.body, r.content_type) for r in records] == [
        ("http://a/0", "200", b"<p>0", "text/html; charset=utf-8"),
        ("http://a/1", "200", b"<p>1", "text/html; charset=utf-8"),
    ]
    assert [read_warc_record(capture, r.offset, 100) for r in records] == [
        # a record that is read alone starts at 0 of what was read
        type(r)(**{**vars(r), "offset": r.offset})
        for r in records
    ]


def test_a_body_is_read_no_further_than_one_byte_above_the_limit(capture):
    assert read_warc_record(capture, 0, 2).body == b"<p>"


@pytest.mark.parametrize("offset", [3, 10**6])
def test_a_place_without_a_record_is_an_error_that_says_to_fetch_again(capture, offset):
    with pytest.raises(ValueError, match=f"has no record at {offset} .*fetch it again"):
        read_warc_record(capture, offset, 100)


def test_a_content_type_is_that_of_a_page_or_not():
    assert is_html("Text/HTML; charset=x") and is_html("application/xhtml+xml")
    assert not is_html("text/htmlx") and not is_html("")


def test_json_ld_that_is_broken_is_left_out_and_the_rest_is_read():
    scripts = ['{"a": ', '{"b": "two\nlines"}', "[" * 100_000]
    assert list(read_json_ld(scripts)) == [{"b": "two\nlines"}]


def test_retry_after_is_read_as_seconds_and_as_a_date():
    later = datetime.now(UTC) + timedelta(seconds=60)
    assert patience.retry_after_s("7") == 7.0
    assert 55 < patience.retry_after_s(format_datetime(later, usegmt=True)) <= 60
    assert patience.retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
    assert patience.retry_after_s("soon") is None and patience.retry_after_s("") is None
