"""A real crawl of a real site on loopback: what was fetched against what it must and must not."""

import hashlib
import io
import sqlite3
import time
from urllib.parse import urlsplit

import pytest
from warcio.archiveiterator import ArchiveIterator

from tests import site
from tests.fetching import assert_one_clear_error, fetch, manifest, rows, start, write_params

LICENCES = ["CC0-1.0", "CC-BY-4.0", "CC BY-SA 4.0"]
SITE_FILES = {"/robots.txt", "/.well-known/tdmrep.json", "/ai.txt"}
FAST = "from finetune import patience; patience.FIRST_WAIT_S = 0.05"


def source(server, **keys):
    return {
        "start_urls": [f"{server.url}/"],
        "sitemaps": [],
        "allowed_paths": [],
        "max_depth": 4,
        "max_pages": 1000,
        "max_page_bytes": 1_000_000,
        "delay": 0.0,
        "timeout": 0.7,
        "revisit_days": 30.0,
        "contact": "tests@example.org",
        "allowed_licenses": LICENCES,
        "declared_license": None,
        "evidence": None,
    } | keys


def crawl(folder, server, env=None, **keys):
    env = {"CRAWL_ALLOW_LOOPBACK": "1"} if env is None else env
    return fetch(folder, "web", source(server, **keys), FAST, **env)


def kept(folder):
    return {urlsplit(raw.origin).path: raw for raw in rows(folder)}


@pytest.fixture(scope="module")
def crawled(tmp_path_factory):
    """The site with everything, crawled once."""
    folder = tmp_path_factory.mktemp("everything")
    with site.serve(site.everything) as server:
        code, output = crawl(
            folder,
            server,
            sitemaps=[f"{server.url}/sitemap.xml"],
            allowed_paths=["/", "/*.html", "/*.mp4", "/film", "/trap/*"],
        )
        assert code == 0, output
        yield folder, server


def test_exactly_the_pages_that_are_allowed_are_kept(crawled):
    folder, _ = crawled
    trap = {f"/trap/{a}{b}" for a in ("", "1", "2") for b in ("", "1", "2")} - {"/trap/"}
    trap |= {f"/trap/{a}{b}{c}" for a in "12" for b in "12" for c in "12"}
    assert set(kept(folder)) - trap == {
        "/",
        "/by.html",
        "/recipe.html",
        "/product.html",
        "/header.html",
        "/latin.html",
        "/packed.html",
        "/flaky.html",
        "/moved-to.html",
        "/behind-none.html",
        "/nofollow.html",
        "/from-sitemap.html",
        "/trap/",
    }


def test_licences_are_those_of_the_pages_with_their_evidence(crawled):
    folder, server = crawled
    found = {path: (raw.license, raw.evidence) for path, raw in kept(folder).items()}
    assert found["/"] == ("CC0-1.0", f"{server.url}/ (rel=license)")
    assert found["/by.html"] == ("CC-BY-4.0", f"{server.url}/by.html (rel=license)")
    assert found["/recipe.html"] == ("CC-BY-SA-4.0", f"{server.url}/recipe.html (JSON-LD)")
    assert found["/product.html"][1] == f"{server.url}/product.html (microdata or RDFa)"
    assert found["/header.html"] == ("CC-BY-4.0", f"{server.url}/header.html (Link header)")


def test_every_other_address_is_counted_under_its_reason(crawled):
    folder, _ = crawled
    counts = manifest(folder)["counts"]
    assert counts == {
        "kept": 27,
        "broken or empty sitemap": 1,
        "connection failed": 1,
        "cut short": 1,
        "deeper than max_depth": 16,
        "disallowed by robots.txt": 3,
        "empty": 1,
        "larger than max_page_bytes": 2,
        "licence not allowed: All rights reserved": 1,
        "licence not allowed: CC-BY-NC-4.0": 1,
        "licence not allowed: CC-BY-NC-ND-4.0": 1,
        "licence of a part of the page only, left for review": 1,
        "no licence found": 2,
        "no valid address": 2,
        "not HTML": 1,
        "not HTML, by its name": 1,
        "off its hosts": 7,
        "outside allowed_paths": 2,
        "private address": 2,
        "redirected": 6,
        "sitemap": 2,
        "slower than timeout": 1,
        "status 404": 1,
        "status 500": 1,
        "text and data mining reserved": 1,
        "the page itself forbids robots": 1,
    }


def test_what_must_not_be_asked_for_was_not(crawled):
    _, server = crawled
    asked = server.asked()
    assert not [path for path in asked if path.startswith("/private/")]
    assert {host for _, host, _, _ in server.log} == {server.url.removeprefix("http://")}
    for path in ("/other/a", "/film.mp4", "/?session=1", "/after-nofollow.html"):
        assert path not in asked


def test_the_crawl_says_who_it_is_and_asks_for_robots_txt_first(crawled):
    _, server = crawled
    agents = {headers["user-agent"] for *_, headers in server.log}
    assert agents == {"finetune-crawler/1.0 (+tests@example.org)"}
    assert server.asked()[0] == "/robots.txt"
    assert not any("cookie" in headers for *_, headers in server.log)


def test_what_fails_is_asked_three_times_and_all_else_once(crawled):
    _, server = crawled
    times = {path: server.asked().count(path) for path in server.asked()}
    assert {path: n for path, n in times.items() if n > 1} == {
        "/slow.html": 3,
        "/cut.html": 3,
        "/reset.html": 3,
        "/error.html": 3,
        "/flaky.html": 2,
    }


def test_the_capture_holds_each_page_at_its_offset(crawled):
    folder, server = crawled
    capture = (folder / "data/raw/it/capture.warc.gz").read_bytes()
    for path, raw in kept(folder).items():
        stream = io.BytesIO(capture[raw.row["warc_offset"] :])
        record = next(iter(ArchiveIterator(stream)))
        assert record.rec_headers.get_header("WARC-Target-URI") == raw.row["url"] == raw.origin
        body = record.content_stream().read()
        assert hashlib.sha256(body).hexdigest() == raw.sha256
        if path not in ("/packed.html", "/trap/") and path in server.pages:
            assert body == server.pages[path].body
        if path == "/packed.html":
            assert b"packed" in body


def test_the_manifest_has_every_document_with_its_verdict_and_validators(crawled):
    folder, server = crawled
    documents = {each["origin"]: each for each in manifest(folder)["documents"]}
    assert documents.keys() == {raw.origin for raw in rows(folder)}
    by = documents[f"{server.url}/by.html"]
    assert by["robots"] == "allowed; nothing reserved"
    assert by["etag"] and by["last_modified"] == site.MODIFIED


def test_a_killed_crawl_continues_and_asks_for_nothing_twice(tmp_path):
    with site.serve(site.chain(40)) as server:
        write_params(tmp_path, "web", "it", source(server))
        process = start(tmp_path, "web", "it", FAST, CRAWL_ALLOW_LOOPBACK="1")
        while len(server.log) < 15 and process.is_alive():
            time.sleep(0.01)
        process.kill()
        process.join()
        assert not (tmp_path / "data/raw/it").exists()
        before = len(server.asked())
        assert before < 42
        code, output = crawl(tmp_path, server)
        assert code == 0, output
        again = [path for path in set(server.asked()) if server.asked().count(path) > 1]
        # robots.txt, and at most the one page that was under way
        assert len(set(again) - SITE_FILES) <= 1, again
    assert len(rows(tmp_path)) == 41


def test_another_limit_fetches_only_what_is_new(tmp_path):
    with site.serve(site.chain(12)) as server:
        assert crawl(tmp_path, server, max_pages=5)[0] == 0
        assert len(rows(tmp_path)) == 5
        assert manifest(tmp_path)["counts"]["beyond max_pages"] == 8
        assert crawl(tmp_path, server, max_pages=100)[0] == 0
        assert len(rows(tmp_path)) == 13
        pages = [path for path in server.asked() if path not in SITE_FILES]
        assert len(pages) == len(set(pages)) == 13


def test_an_old_page_is_asked_for_with_its_validators_and_stays(tmp_path):
    with site.serve(site.chain(5)) as server:
        assert crawl(tmp_path, server)[0] == 0
        first = {raw.origin: raw.sha256 for raw in rows(tmp_path)}
        capture = (tmp_path / "data/raw/it/capture.warc.gz").read_bytes()
        del server.log[:]
        server.pages["/page-1.html"] = site.page(f"changed {site.CC0}")
        assert crawl(tmp_path, server, revisit_days=0.0)[0] == 0
        asked = [headers for _, _, path, headers in server.log if path not in SITE_FILES]
        assert len(asked) == 6
        assert all(h["if-none-match"] and h["if-modified-since"] for h in asked)
        second = {raw.origin: raw.sha256 for raw in rows(tmp_path)}
        assert {url for url in first if first[url] != second[url]} == {f"{server.url}/page-1.html"}
        del server.log[:]
        assert crawl(tmp_path, server)[0] == 0
        assert server.asked() == []  # all fresh: no request at all, not even for robots.txt
        assert (tmp_path / "data/raw/it/capture.warc.gz").read_bytes() != capture


def test_the_same_store_gives_the_same_bytes(tmp_path):
    with site.serve(site.chain(3)) as server:
        found = []
        for _ in range(2):
            assert crawl(tmp_path, server)[0] == 0
            folder = tmp_path / "data/raw/it"
            found.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert found[0] == found[1]


def test_the_delay_of_robots_txt_is_kept_and_one_thing_asked_at_a_time(tmp_path):
    def pages(server):
        robots = site.Answer(b"User-agent: finetune-crawler\nCrawl-delay: 0.4\n")
        return site.chain(4)(server) | {"/robots.txt": robots}

    with site.serve(pages) as server:
        assert crawl(tmp_path, server)[0] == 0
        times = [at for at, _, path, _ in server.log if path not in SITE_FILES]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert len(gaps) == 4 and min(gaps) > 0.38, gaps
    assert server.most_at_once == 1


def test_a_host_that_asks_for_time_gets_it(tmp_path):
    def pages(server):
        found = site.chain(2)(server)
        found["/page-0.html"].first = [site.Answer(b"busy", 429, {"Retry-After": "1"})]
        return found

    with site.serve(pages) as server:
        assert crawl(tmp_path, server)[0] == 0
        times = [at for at, *_ in server.log]
        busy = server.asked().index("/page-0.html")
        assert times[busy + 1] - times[busy] > 0.95
        assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("status", [500, 429])
def test_without_a_readable_robots_txt_nothing_is_fetched(tmp_path, status):
    def pages(server):
        return site.chain(2)(server) | {"/robots.txt": site.Answer(b"", status)}

    with site.serve(pages) as server:
        result = crawl(tmp_path, server)
        assert_one_clear_error(*result, "no page may be used", "robots.txt cannot be read")
        assert set(server.asked()) == {"/robots.txt"}


def test_without_any_robots_txt_pages_may_be_fetched(tmp_path):
    with site.serve(site.chain(1)) as server:
        assert crawl(tmp_path, server)[0] == 0
    assert {raw.robots for raw in rows(tmp_path)} == {
        "allowed: no robots.txt (404); nothing reserved"
    }


@pytest.mark.parametrize("name", ["url", "other"])
def test_a_private_address_is_never_asked_also_when_a_name_hides_it(tmp_path, name):
    with site.serve(site.chain(1)) as server:
        result = crawl(tmp_path, server, env={}, start_urls=[getattr(server, name) + "/"])
        assert_one_clear_error(*result, "no page may be used", "private address")
        assert server.log == []


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"],
)
def test_a_private_address_in_another_notation_is_not_asked(tmp_path, host):
    with site.serve(site.chain(1)) as server:
        urls = [f"http://{host}:{server.server_port}/"]
        result = crawl(tmp_path, server, env={}, start_urls=urls)
        assert_one_clear_error(*result, "no page may be used", "private address")
        assert server.log == []


def test_a_name_that_turns_private_while_it_is_crawled_does_not_lead_there(tmp_path):
    """DNS rebinding: what was resolved and judged is connected to, whatever is answered later."""
    with site.serve(site.chain(3)) as server:
        code, output, connected = crawl_names(tmp_path, server, "turns", turns=[PUBLIC, "10.0.0.1"])
        assert code == 0, output
        assert len(rows(tmp_path)) == 4 and connected == {PUBLIC}


def test_a_redirect_does_not_lead_to_a_private_address_on_a_host_of_the_crawl(tmp_path):
    def pages(server):
        inner = f"http://inner.example:{server.server_port}/admin"
        moved = site.Answer(status=302, headers={"Location": inner})
        return site.chain(1)(server) | {"/page-0.html": moved}

    with site.serve(pages) as server:
        names = {"outer": [PUBLIC], "inner": ["10.0.0.1"]}
        code, output, connected = crawl_names(tmp_path, server, "outer", "inner", **names)
        assert code == 0, output
        assert connected == {PUBLIC}
        counts = manifest(tmp_path)["counts"]
        assert (counts["redirected"], counts["private address"]) == (1, 2)


PUBLIC = "127.0.0.1"  # stands for a public address: CRAWL_ALLOW_LOOPBACK


def crawl_names(folder, server, *hosts, **answers):
    """Crawl from NAME.example of each host; exit code, output, and what was connected to."""
    prelude = f"{FAST}; from tests import site; site.stand_in_for_dns(**{answers})"
    urls = [f"http://{host}.example:{server.server_port}/" for host in hosts]
    allow = {"CRAWL_ALLOW_LOOPBACK": "1"}
    result = fetch(folder, "web", source(server, start_urls=urls), prelude, **allow)
    return *result, set((folder / "connected").read_text(encoding="utf-8").split())


def test_a_declared_licence_holds_only_where_a_page_names_none(tmp_path):
    declared = {"declared_license": "CC-BY-4.0", "evidence": "https://example.org/terms"}
    with site.serve(site.everything) as server:
        urls = [f"{server.url}{path}" for path in ("/none.html", "/nc.html", "/recipe.html")]
        assert crawl(tmp_path, server, start_urls=urls, max_depth=0, **declared)[0] == 0
    found = {path: (raw.license, raw.evidence) for path, raw in kept(tmp_path).items()}
    assert found["/none.html"] == ("CC-BY-4.0", "https://example.org/terms")
    assert found["/recipe.html"][0] == "CC-BY-SA-4.0"
    assert "/nc.html" not in found


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"contact": "set your address here"}, ["contact", "set your address here"]),
        ({"start_urls": ["ftp://example.org/"]}, ["ftp://example.org/"]),
        ({"start_urls": []}, ["neither start_urls nor sitemaps"]),
    ],
)
def test_a_source_that_cannot_be_crawled_is_one_error(tmp_path, keys, words):
    with site.serve(site.chain(1)) as server:
        assert_one_clear_error(*crawl(tmp_path, server, **keys), *words)
        assert server.log == []


def test_a_broken_store_is_one_error_and_stays(tmp_path):
    with site.serve(site.chain(1)) as server:
        assert crawl(tmp_path, server)[0] == 0
        base = next(tmp_path.glob("data/crawl/*/pages.sqlite"))
        base.write_bytes(b"no database" * 999)
        assert_one_clear_error(*crawl(tmp_path, server), str(base.parent.name), "broken")
        assert base.read_bytes().startswith(b"no database")


def test_a_site_that_is_away_is_one_error(tmp_path):
    with site.serve(site.chain(1)) as server:
        pass
    assert_one_clear_error(*crawl(tmp_path, server), "no page may be used")


def text(body):
    return site.Answer(body, headers={"Content-Type": "text/plain"})


RESERVED = {
    "Content-Signal": {"/robots.txt": b"User-agent: *\nContent-Signal: search=yes,ai-train=no\n"},
    "Content-Usage": {"/robots.txt": b"User-Agent: *\nContent-Usage: train-ai=n\nAllow: /\n"},
    "closed to crawlers for training (GPTBot)": {
        "/robots.txt": b"User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /\n\nUser-agent: *\n"
    },
    "reserved by tdmrep.json": {
        "/.well-known/tdmrep.json": b'[{"location": "/*", "tdm-reservation": 1}]'
    },
    "reserved by ai.txt": {"/ai.txt": b"User-Agent: *\nDisallow: /\n"},
    "disallowed by robots.txt": {
        "/robots.txt": "\ufeffUser-agent: finetune-crawler/1.0\nDisallow: /\n".encode("utf-16-le")
    },
    "/ai.txt cannot be read": {},
}


@pytest.mark.parametrize("reason", RESERVED)
def test_what_a_site_reserves_is_not_fetched_and_counted_under_its_own_reason(tmp_path, reason):
    def pages(server):
        found = site.chain(1)(server) | {p: text(b) for p, b in RESERVED[reason].items()}
        return found if RESERVED[reason] else found | {"/ai.txt": site.Answer(b"", 500)}

    with site.serve(pages) as server:
        assert_one_clear_error(*crawl(tmp_path, server), "no page may be used", reason)
        assert set(server.asked()) <= SITE_FILES


def test_sitemaps_of_robots_txt_are_read_also_when_all_pages_are_fresh(tmp_path):
    def pages(server):
        robots = f"User-agent: *\nDisallow:\nSitemap: {server.url}/map.xml\n".encode()
        xml = {"Content-Type": "application/xml"}
        listed = site.Answer(site.listing(f"{server.url}/listed.html"), headers=xml)
        more = {"/map.xml": listed, "/listed.html": site.page(f"listed {site.CC0}")}
        return site.chain(1)(server) | {"/robots.txt": text(robots)} | more

    with site.serve(pages) as server:
        for _ in range(2):
            assert crawl(tmp_path, server)[0] == 0
            assert "/listed.html" in kept(tmp_path)


def test_a_page_of_a_store_from_before_reservations_were_read_is_asked_for_again(tmp_path):
    with site.serve(site.chain(1)) as server:
        assert crawl(tmp_path, server)[0] == 0
        base = sqlite3.connect(next(tmp_path.glob("data/crawl/*/pages.sqlite")))
        base.execute("UPDATE pages SET robots = 'allowed'")
        base.commit()
        base.close()
        server.pages["/ai.txt"] = text(b"User-Agent: *\nDisallow: /page\n")
        assert crawl(tmp_path, server)[0] == 0
    assert set(kept(tmp_path)) == {"/"}
