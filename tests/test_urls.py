"""Remote files through the real fsspec, s3fs and aiohttp, from a server on loopback."""

import hashlib
import json

import pytest

from finetune import patience
from stages.fetch import urls
from tests import hub_server
from tests.fetching import assert_one_clear_error, fetch, manifest, rows

BIG = b"".join(b'{"text": "%06d %s"}\n' % (i, b"x" * 24_000) for i in range(700))  # 17 MB
LINES = b"".join(json.dumps({"text": f"{i} " + "x" * 100}).encode() + b"\n" for i in range(100))


@pytest.fixture
def server():
    with hub_server.serve() as server:
        yield server


def source(url, data):
    sums = {"all": hashlib.sha256(data).hexdigest()}
    return {"files": {"all": url}, "sha256": sums, "license": "CC0-1.0", "evidence": "the page"}


def test_a_file_is_read_and_its_origin_and_sum_kept(server, tmp_path):
    server.files["/a.jsonl"] = LINES
    url = f"{server.endpoint}/a.jsonl"
    code, output = fetch(tmp_path, "urls", source(f"{url}?key=SECRET", LINES))
    assert code == 0, output
    assert len(rows(tmp_path)) == 100
    assert rows(tmp_path)[1].origin == f"{url}:2"
    assert manifest(tmp_path)["files"][0]["sha256"] == hashlib.sha256(LINES).hexdigest()
    assert "SECRET" not in output + json.dumps(manifest(tmp_path))


def test_a_file_that_was_fetched_is_not_fetched_again(server, tmp_path):
    server.files["/a.jsonl"] = LINES
    for _ in range(2):
        code, output = fetch(tmp_path, "urls", source(f"{server.endpoint}/a.jsonl", LINES))
        assert code == 0, output
    assert len(server.requested("/a.jsonl")) == 1


def test_another_sum_than_expected_is_an_error_and_nothing_is_used(server, tmp_path):
    server.files["/a.jsonl"] = LINES + b"{}\n"
    wrong = hashlib.sha256(server.files["/a.jsonl"]).hexdigest()
    result = fetch(tmp_path, "urls", source(f"{server.endpoint}/a.jsonl?key=SECRET", LINES))
    assert_one_clear_error(*result, "/a.jsonl", wrong, hashlib.sha256(LINES).hexdigest())
    assert "SECRET" not in result[1]
    assert not (tmp_path / "data/raw").exists()


def test_a_broken_connection_continues_where_it_broke(server, tmp_path):
    server.files["/a.jsonl"] = BIG
    server.fail("/a.jsonl", cut_at=100_000)
    server.fail("/a.jsonl", status=503, headers={"Retry-After": "0"})
    code, output = fetch(tmp_path, "urls", source(f"{server.endpoint}/a.jsonl", BIG))
    assert code == 0, output
    assert len(rows(tmp_path)) == 700


def test_an_interrupted_download_continues_in_the_next_run(server, tmp_path):
    server.files["/a.jsonl"] = BIG
    store = tmp_path / "data/crawl/urls"
    store.mkdir(parents=True)
    (store / f"{hashlib.sha256(BIG).hexdigest()}.partial").write_bytes(BIG[:9_000_000])
    code, output = fetch(tmp_path, "urls", source(f"{server.endpoint}/a.jsonl", BIG))
    assert code == 0, output
    starts = [h["range"].split("=")[1].split("-")[0] for h in server.requested("/a.jsonl")]
    assert min(map(int, starts)) == 9_000_000


def test_a_server_without_ranges_is_read_in_one_go(server, tmp_path):
    server.files["/a.jsonl"], server.ranges = BIG, False
    code, output = fetch(tmp_path, "urls", source(f"{server.endpoint}/a.jsonl", BIG))
    assert code == 0, output
    assert len(rows(tmp_path)) == 700


def test_a_password_is_taken_from_netrc(server, tmp_path):
    server.files["/a.jsonl"] = LINES
    (tmp_path / "netrc").write_text(
        "machine 127.0.0.1 login me password SECRET\n", encoding="utf-8"
    )
    it = source(f"{server.endpoint}/a.jsonl", LINES)
    code, output = fetch(tmp_path, "urls", it, NETRC=str(tmp_path / "netrc"))
    assert code == 0, output
    assert server.requested("/a.jsonl")[0]["authorization"].startswith("Basic ")


def test_an_s3_object_is_read(server, tmp_path):
    server.files["/bucket/some/a.jsonl"] = LINES
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "SECRET"}
    keys |= {"AWS_ENDPOINT_URL": server.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    code, output = fetch(tmp_path, "urls", source("s3://bucket/some/a.jsonl", LINES), **keys)
    assert code == 0, output
    assert rows(tmp_path)[0].origin == "s3://bucket/some/a.jsonl:1"


def test_a_missing_s3_object_is_one_error(server, tmp_path):
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "SECRET"}
    keys |= {"AWS_ENDPOINT_URL": server.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    result = fetch(tmp_path, "urls", source("s3://bucket/a.jsonl", LINES), **keys)
    assert_one_clear_error(*result, "s3://bucket/a.jsonl", "there is no such file")


def test_a_name_after_the_address_says_the_format(server, tmp_path):
    server.files["/download"] = b"text\nhello\n"
    url = f"{server.endpoint}/download?id=3#rows.csv"
    code, output = fetch(tmp_path, "urls", source(url, server.files["/download"]))
    assert code == 0, output
    assert rows(tmp_path)[0].row == {"text": "hello"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/none.jsonl?key=SECRET", ["404"]),
        ("/forbidden.jsonl?key=SECRET", ["403"]),
        ("/a.7z?key=SECRET", ["known format"]),
    ],
)
def test_what_cannot_be_fetched_is_one_error_without_its_key(server, tmp_path, path, words):
    server.fail("/forbidden", times=9, status=403)
    server.fail("/forbidden", "HEAD", times=9, status=403)
    result = fetch(tmp_path, "urls", source(server.endpoint + path, LINES))
    assert_one_clear_error(*result, path.partition("?")[0], *words)
    assert "SECRET" not in result[1]


@pytest.mark.parametrize(
    "url", ["http://me:SECRET@127.0.0.1/a.jsonl", "file:///etc/passwd.txt", "/etc/a.jsonl"]
)
def test_an_address_that_must_not_be_read_is_refused(tmp_path, url):
    result = fetch(tmp_path, "urls", source(url, LINES))
    assert_one_clear_error(*result)
    assert "SECRET" not in result[1]


def test_a_server_that_is_away_is_one_error_after_the_retries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.01)
    with pytest.raises(OSError, match="127.0.0.1:9/a.jsonl could not be fetched"):
        urls.fetch("http://127.0.0.1:9/a.jsonl", "0" * 64)
