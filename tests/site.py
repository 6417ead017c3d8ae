"""A web site on loopback, served by a real HTTP server, with all that a crawl can meet.

    with site.serve(site.everything) as server:
        ...                          # crawl server.url; server.log lists what was asked for

A site is a function of the server that returns its pages: path -> Answer, or a function of the
request handler that answers as it likes.
"""

import gzip
import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CC = "https://creativecommons.org/licenses"
CC0 = (
    '<footer><a rel="license" href="https://creativecommons.org/publicdomain/zero/1.0/">CC0</a>'
    "</footer>"
)
MODIFIED = "Mon, 02 Jan 2023 03:04:05 GMT"


@dataclass
class Answer:
    """What a path answers; `wait_s` before it starts, `drop` how it ends too early."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    drop: str = ""  # "cut": in the middle of the body; "reset": without an answer
    first: "list[Answer]" = field(default_factory=list)  # given before it, once each


class Site(ThreadingHTTPServer):
    """The server: `log` lists (seconds, host, path, headers) in the order of arrival."""

    daemon_threads = True

    def __init__(self, pages: Callable[["Site"], dict[str, Answer]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.other = f"http://localhost:{self.server_port}"
        self.log: list[tuple[float, str, str, dict[str, str]]] = []
        self.busy = self.most_at_once = 0
        self.pages = pages(self)

    def asked(self, path: str | None = None) -> list[str]:
        """The paths that were asked for, in order; or those that equal `path`."""
        return [each for _, _, each, _ in self.log if path in (None, each)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.server
        site.busy += 1
        site.most_at_once = max(site.most_at_once, site.busy)
        headers = {name.lower(): value for name, value in self.headers.items()}
        site.log.append((time.monotonic(), self.headers["Host"], self.path, headers))
        try:
            self.answer(self.find(), headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough, which is what some of the tests are about
        finally:
            site.busy -= 1

    def find(self) -> Answer:
        page = self.server.pages.get(self.path)
        if page is None and self.path.startswith("/trap/"):
            page = self.server.pages.get("/trap/*") and trap(self.path)
        if page is not None and page.first:
            return page.first.pop(0)
        return page or Answer(b"nothing here", 404)

    def answer(self, page: Answer, asked: dict[str, str]) -> None:
        time.sleep(page.wait_s)
        if page.drop == "reset":
            linger = b"\1\0\0\0\0\0\0\0"
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return self.connection.close()
        etag = f'"{hashlib.md5(page.body).hexdigest()}"'
        headers = {"Content-Type": "text/html; charset=utf-8", "ETag": etag} | page.headers
        if page.status == 200 and asked.get("if-none-match") == etag:
            return self.send(304, {"ETag": etag}, b"", 0)
        body = page.body[: len(page.body) // 2] if page.drop == "cut" else page.body
        self.close_connection = page.drop == "cut"
        return self.send(page.status, headers, body, len(page.body))

    def send(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def page(text: str, *links: str, head: str = "", **headers: str) -> Answer:
    """A page with a heading, a paragraph and links."""
    items = "".join(f'<li><a href="{link}">to {link}</a></li>' for link in links)
    body = (
        f"<html><head><title>{text}</title>{head}</head><body><h1>{text}</h1>{items}</body></html>"
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(body.encode(), headers={"Last-Modified": MODIFIED} | named)


def trap(path: str) -> Answer:
    """Each page links to two that are new, without end."""
    return page(f"trap {path} {CC0}", f"{path}1", f"{path}2")


def json_ld(value: object) -> str:
    return f'<script type="application/ld+json">{json.dumps(value)}</script>'


def listing(*urls: str, index: bool = False) -> bytes:
    """A sitemap, or an index of sitemaps."""
    inner, outer = ("sitemap", "sitemapindex") if index else ("url", "urlset")
    items = "".join(f"<{inner}><loc>{url}</loc></{inner}>" for url in urls)
    return f"<{outer}>{items}</{outer}>".encode()


def everything(site: Site) -> dict[str, Answer]:
    """A site with every case at once; the index links to all of them."""
    recipe = {"@type": "Recipe", "name": "Bread", "license": f"{CC}/by-sa/4.0/"}
    picture = {"@type": "Recipe", "image": {"@type": "ImageObject", "license": f"{CC}/by/4.0/"}}
    product = f'<a itemprop="license" href="{CC}/by/4.0/">l</a>'
    product = f'<div itemscope itemtype="https://schema.org/Product">{product}</div>'
    pages = {
        # to be kept
        "/by.html": page(
            f'BY <footer><a rel="license noopener" href="{CC}/by/4.0/deed.de">l</a></footer>'
        ),
        "/recipe.html": page("recipe", head=json_ld([recipe])),
        "/product.html": page(f"product {product}"),
        "/header.html": page("header", Link=f'<{CC}/by/4.0/>; rel="license"'),
        "/latin.html": Answer(
            f"<p>cr\u00e8me {CC0}".encode("latin-1"),
            headers={"Content-Type": "text/html; charset=iso-8859-1"},
        ),
        "/packed.html": Answer(
            gzip.compress(f"<p>packed {CC0}".encode()), headers={"Content-Encoding": "gzip"}
        ),
        "/flaky.html": page(f"flaky {CC0}"),
        "/moved-to.html": page(f"moved to {CC0}"),
        # not to be kept
        "/nc.html": page(f'NC <footer><a rel="license" href="{CC}/by-nc-nd/4.0/">l</a></footer>'),
        "/both.html": page(
            f'both <footer><a rel="license" href="{CC}/by-nc/4.0/">l</a></footer> {CC0}'
        ),
        "/caption.html": page(
            f'<figure><a rel="license" href="{CC}/by/4.0/">l</a></figure>All rights reserved'
        ),
        "/reserved.html": page(
            "reserved", head='<meta name="dcterms.rights" content="All rights reserved">'
        ),
        "/none.html": page("none", "/behind-none.html"),
        "/behind-none.html": page(f"behind none {CC0}"),
        "/picture.html": page("picture", head=json_ld(picture)),
        "/noindex.html": page(f"noindex {CC0}", head='<meta name="ROBOTS" content="noindex">'),
        "/nofollow.html": page(f"nofollow {CC0}", "/after-nofollow.html", X_Robots_Tag="nofollow"),
        "/tdm.html": page(f"tdm {CC0}", head='<meta name="tdm-reservation" content="1">'),
        "/empty.html": Answer(b"  "),
        "/film": Answer(b"\0" * 3_000_000, headers={"Content-Type": "video/mp4"}),
        "/huge.html": Answer(b"<p>" + b"x" * 3_000_000),
        "/bomb.html": Answer(
            gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"}
        ),
        "/slow.html": Answer(b"<p>slow", wait_s=3),
        "/cut.html": Answer(b"<p>cut" * 1000, drop="cut"),
        "/reset.html": Answer(drop="reset"),
        "/error.html": Answer(b"error", 500),
        "/private/secret.html": page(f"secret {CC0}"),
        # redirects
        "/moved.html": Answer(status=301, headers={"Location": "/moved-to.html"}),
        "/outside.html": Answer(status=302, headers={"Location": f"{site.other}/there.html"}),
        "/to-private.html": Answer(status=302, headers={"Location": "http://10.0.0.1/admin"}),
        "/loop.html": Answer(status=302, headers={"Location": "/loop.html"}),
        "/to-nowhere.html": Answer(status=302, headers={"Location": "//["}),
        "/to-secret.html": Answer(status=302, headers={"Location": "/private/by-redirect.html"}),
        "/trap/": trap("/trap/"),
    }
    pages["/flaky.html"].first = [Answer(b"busy", 503, {"Retry-After": "0"})]
    links = [
        *pages,
        "/missing.html",
        "/?session=1",
        "/by.html#part",
        "mailto:a@b.c",
        "/other/a",
        "/film.mp4",
        "http://[",
        "http://port:x/",
    ]
    links += [
        f"{site.other}/there.html",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
    ]
    listed = [link for link in links if link not in ("/behind-none.html", "/moved-to.html")]
    sitemap = listing("/from-sitemap.html", "/private/listed.html", "http://[x/")
    index = listing(f"{site.url}/map-1.xml.gz", f"{site.url}/map-2.xml", index=True)
    xml = {"Content-Type": "application/xml"}
    return pages | {
        "/": page(f"index {CC0}", *listed),
        "/trap/*": Answer(),
        "/robots.txt": Answer(
            b"User-agent: *\nDisallow: /private/\nCrawl-delay: 0.05\n",
            headers={"Content-Type": "text/plain"},
        ),
        "/sitemap.xml": Answer(index, headers=xml),
        "/map-1.xml.gz": Answer(gzip.compress(sitemap), headers=xml),
        "/map-2.xml": Answer(b"<urlset><url><loc>", headers=xml),
        "/from-sitemap.html": page(f"from sitemap {CC0}"),
    }


def chain(length: int) -> Callable[[Site], dict[str, Answer]]:
    """A site of `length` licensed pages under an index, each of which takes a moment."""

    def pages(_: Site) -> dict[str, Answer]:
        names = [f"/page-{i}.html" for i in range(length)]
        found = {name: page(f"{name} {CC0}") for name in names}
        for each in found.values():
            each.wait_s = 0.02
        return {"/": page(f"index {CC0}", *names), **found}

    return pages


@contextmanager
def serve(pages: Callable[[Site], dict[str, Answer]]) -> Iterator[Site]:
    """A site that serves until the block ends."""
    server = Site(pages)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def stand_in_for_dns(**answers: list[str]) -> None:
    """NAME.example has these addresses, one after the other, and from then on the last.

    For the process of a crawl: the addresses that it connects to are lines of the file `connected`.
    """

    def look_up(name: str) -> str:
        left = answers[name.removesuffix(".example")]
        return left.pop(0) if len(left) > 1 else left[0]

    def note(event: str, details: tuple) -> None:
        if event == "socket.connect" and isinstance(details[1], tuple):
            with Path("connected").open("a", encoding="utf-8") as file:
                file.write(f"{details[1][0]}\n")

    socket.gethostbyname = look_up
    sys.addaudithook(note)
