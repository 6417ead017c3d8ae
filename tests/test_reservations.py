"""What a site, and a page, says about training: in every spelling that is in use."""

import json

import pytest
from scrapy.http import HtmlResponse

from stages.fetch.judging import RESERVED, robots_words
from stages.fetch.reservations import Reservations, plain_robots, reserves_training

PAGE = "https://example.org/recipes/bread.html"
SIGNAL = "reserved by robots.txt: Content-Signal"
USAGE = "reserved by robots.txt: Content-Usage"


def closed(bot):
    return f"reserved by robots.txt: closed to crawlers for training ({bot})"


@pytest.mark.parametrize(
    ("robots", "reason"),
    [
        ("User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /", SIGNAL),
        ("user-AGENT:*\r\ncontent-signal:AI-Train=NO # no\r\n", SIGNAL),
        ("Content-Signal: ai-train=no\nUser-agent: *\nAllow: /", SIGNAL),
        ("User-agent: *\nContent-Signal: ai-train=yes,ai-input=no", None),
        ("User-agent: OtherBot\nContent-Signal: ai-train=no\n\nUser-agent: *\nAllow: /", None),
        ("User-agent: a\nUser-agent: *\nContent-Usage: train-ai=n", USAGE),
        ("User-agent: *\nContent-Usage: /recipes/ train-ai=n", USAGE),
        ("User-agent: *\nContent-Usage: /other/ train-ai=n", None),
        ("User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /recipes/ train-ai=y", None),
        (
            "User-agent: *\nContent-Usage: train-ai=n\n\nUser-agent: finetune-crawler\nAllow: /",
            None,
        ),
        ("User-agent: GPTBot\nDisallow: /\nUser-agent: *\nAllow: /", closed("GPTBot")),
        ("User-agent: claudebot/1.0\nDisallow: /rec*.html$", closed("ClaudeBot")),
        ("User-agent: CCBot\nDisallow: /private/", None),
        ("User-agent: CCBot\nDisallow: /\nAllow: /recipes/", None),
        ("User-agent: GPTBot\nDisallow: /\n\nUser-agent: finetune-crawler\nAllow: /", None),
        ("User-agent: SearchBot\nDisallow: /", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_what_robots_txt_says_about_training(robots, reason, encoding):
    assert Reservations(robots.encode(encoding)).reason(PAGE) == reason


@pytest.mark.parametrize(
    ("entries", "reserved"),
    [
        ([{"location": "/*", "tdm-reservation": 1}], True),
        ([{"location": "/", "tdm-reservation": "1", "tdm-policy": "https://x.org"}], True),
        ([{"location": "/recipes/*.html$", "tdm-reservation": 1}], True),
        ([{"location": "/*", "tdm-reservation": 1},
          {"location": "/recipes/", "tdm-reservation": 0}], False),
        ([{"location": "/images/", "tdm-reservation": 1}], False),
        ({"tdm-reservation": 1}, True),
        ([{"location": 3, "tdm-reservation": 1}, None], False),
        ("<html>not found", False),
    ],
)  # fmt: skip
def test_tdmrep_json_reserves_by_the_longest_pattern(entries, reserved):
    data = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    expected = "reserved by tdmrep.json" if reserved else None
    assert Reservations(b"", data).reason(PAGE) == expected


@pytest.mark.parametrize(
    ("text", "reserved"),
    [
        ("User-Agent: *\nDisallow: /", True),
        ("User-Agent: *\nDisallow: *.html", True),
        ("User-Agent: *\nAllow: *.html\nDisallow: *.jpg", False),
        ("User-Agent: *\nAllow: /", False),
        ("<html>Disallow: /", False),
    ],
)
def test_ai_txt_reserves_pages(text, reserved):
    assert Reservations(b"", b"", text.encode()).reason(PAGE) == (
        "reserved by ai.txt" if reserved else None
    )


def test_robots_txt_reaches_the_parser_as_utf_8_without_versions():
    robots = "\ufeffUser-agent: finetune-crawler/1.0\rDisallow: /\r"
    assert plain_robots(robots.encode("utf-16")).endswith(
        b"User-agent: finetune-crawler\nDisallow: /"
    )


@pytest.mark.parametrize("value", ["train-ai=n", "search=y, train-ai=n", "AI-TRAIN=no;x=y"])
def test_preferences_that_refuse_training(value):
    assert reserves_training(value)
    assert not reserves_training("train-ai=y, search=n")


@pytest.mark.parametrize(
    ("head", "header", "word"),
    [
        ('<meta name="robots" content="noai, noimageai">', "", "noai"),
        ('<META NAME=" Robots " CONTENT="NO-AI">', "", "noai"),
        ('<meta name="robots" content="index,no ai">', "", "noai"),
        ('<meta name="robots" content="noimageai">', "", "noimageai"),
        ('<meta name="robots" content="follow noarchive">', "", "noarchive"),
        ('<meta name="GPTBot" content="noai">', "", "noai"),
        ('<meta http-equiv="X-Robots-Tag" content="noai">', "", "noai"),
        ("", "noai", "noai"),
        ("", "finetune-crawler: noarchive", "noarchive"),
        ("", "unavailable_after: 25 Jun 2030 15:00:00 PST, No-Image-AI", "noimageai"),
        ("", "CCBot: noai", "noai"),
        ("", "otherbot: noai", None),
        ('<meta name="googlebot" content="noarchive">', "", None),
        ('<meta name="robots" content="index, follow">', "max-snippet:-1", None),
    ],
)
def test_what_a_page_reserves_is_found_in_every_spelling(head, header, word):
    headers = {"Content-Type": "text/html", **({"X-Robots-Tag": header} if header else {})}
    body = f"<html><head>{head}</head><p>text".encode()
    found = robots_words(HtmlResponse(PAGE, headers=headers, body=body))
    assert next((each for each in RESERVED if each in found), None) == word
