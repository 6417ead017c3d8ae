"""What a site as a whole says about training on its pages, beside what robots may fetch.

robots.txt: `Content-Signal` (contentsignals.org) and `Content-Usage` (IETF aipref) in the group
that applies, and groups for crawlers that collect training data. Besides `/ai.txt` (Spawning) and
`/.well-known/tdmrep.json` (TDM Reservation Protocol, W3C). Each is a reason of its own.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

AGENT = "finetune-crawler"  # the name that robots.txt knows us by
TRAINING_CRAWLERS = (
    *("GPTBot", "Google-Extended", "CCBot", "anthropic-ai", "ClaudeBot", "Claude-Web"),
    *("Applebot-Extended", "Bytespider", "meta-externalagent", "FacebookBot", "cohere-ai"),
    *("cohere-training-data-crawler", "omgili", "omgilibot", "ImagesiftBot", "AI2Bot"),
    *("Ai2Bot-Dolma", "Amazonbot", "PanguBot", "img2dataset", "Kangaroo-Bot", "Timpibot"),
    *("Webzio-Extended", "VelenPublicWebCrawler", "SBIntuitionsBot", "Google-CloudVertexBot"),
)
USES = ("train-ai", "ai-train", "train-genai", "genai-train", "ai", "genai", "tdm", "bots")
TDMREP, AI_TXT = "/.well-known/tdmrep.json", "/ai.txt"
PAGES = ("*.html", "*.htm", "*.html$", "*.htm$")  # ai.txt names media by suffix, not by address
Group = dict[str, list[tuple[str, str]]]  # agent in lower case -> its (key, value) lines


class Reservations:
    """The reservations of one host, out of its three files as bytes (b"" for one that is not)."""

    def __init__(self, robots: bytes, tdmrep: bytes = b"", ai: bytes = b"") -> None:
        self._groups, self._ai = _groups(decode_robots(robots)), _groups(decode_robots(ai))
        self._tdm = list(_tdm_rules(tdmrep))
        self._named_bots = [each for each in TRAINING_CRAWLERS if each.lower() in self._groups]
        if AGENT in self._groups:  # the site has made up its mind about this one
            self._named_bots = []

    def reason(self, url: str) -> str | None:
        """Why a page of that address is not for training, or None."""
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for key in ("content-signal", "content-usage"):
            if _last_wish(_lines_for(self._groups, AGENT), key, path):
                name = key.title()
                return f"reserved by robots.txt: {name}"
        for bot in self._named_bots:
            if not _may(self._groups[bot.lower()], path):
                return f"reserved by robots.txt: closed to crawlers for training ({bot})"
        if _longest(self._tdm, path):
            return "reserved by tdmrep.json"
        rules = _lines_for(self._ai, AGENT)
        if not _may(rules, path) or any(k == "disallow" and v in PAGES for k, v in rules):
            return "reserved by ai.txt"
        return None


def decode_robots(data: bytes) -> str:
    """The text of a robots.txt in UTF-8 or UTF-16, with or without BOM; other bytes as Latin-1."""
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(encoding, "replace" if "16" in encoding else "strict")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.lstrip("\ufeff")


def plain_robots(data: bytes) -> bytes:
    """robots.txt as parsers know it: UTF-8, line feeds, agents without a version."""
    text = "\n".join(decode_robots(data).splitlines())
    return re.sub(r"(?im)^(\s*user-agent\s*:\s*[^\s/#]+)/[^\s#]*", r"\1", text).encode()


def reserves_training(value: str) -> bool:
    """Whether a list of preferences, as in `search=yes, ai-train=no`, refuses training."""
    return any(wish in ("n", "no", "?0") for wish in _wishes(value))


def _wishes(value: str) -> list[str]:
    pairs = (each.partition("=") for each in re.split(r"[,;\s]+", value.lower()))
    return [wish.strip('"') for name, _, wish in pairs if name in USES]


def _groups(text: str) -> Group:
    """The lines of each group, under each of its agents; those before any group are all robots'."""
    groups: Group = {}
    agents, naming = ["*"], False
    for line in text.splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if key == "user-agent":
            name = value.partition("/")[0].strip().lower()
            agents, naming = ([*agents, name] if naming else [name]), True
            groups.setdefault(name, [])
        elif colon and key != "sitemap":
            naming = False
            for agent in agents:
                groups.setdefault(agent, []).append((key, value))
    return groups


def _lines_for(groups: Group, agent: str) -> list[tuple[str, str]]:
    return groups.get(agent, groups.get("*", []))


def _last_wish(lines: list[tuple[str, str]], key: str, path: str) -> bool:
    """Whether the preference with the longest path that applies refuses training."""
    rules = []
    for name, value in lines:
        if name == key:
            first, _, rest = value.partition(" ")
            pattern, wishes = (first, rest) if first.startswith(("/", "*")) else ("/", value)
            if _wishes(wishes):
                rules.append((pattern, reserves_training(wishes)))
    return _longest(rules, path)


def _may(lines: list[tuple[str, str]], path: str) -> bool:
    """RFC 9309: the longest pattern decides; `allow` wins a tie; what is not named is allowed."""
    keys = ("allow", "disallow")
    rules = [(value, key == "allow") for key, value in lines if key in keys and value]
    return _longest(rules, path, default=True)


def _longest(rules: list[tuple[str, bool]], path: str, default: bool = False) -> bool:
    """What the longest pattern that matches says; of two of one length, True."""
    found = ((len(pattern), said) for pattern, said in rules if _matches(pattern, path))
    return max(found, default=(0, default))[1]


def _matches(pattern: str, path: str) -> bool:
    """A pattern of robots.txt from the start of the path: `*` is anything, a last `$` the end."""
    end = "$" if pattern.endswith("$") else ""
    parts = (re.escape(unquote(part)) for part in pattern.removesuffix("$").split("*"))
    return re.match(".*".join(parts) + end, unquote(path), re.DOTALL) is not None


def _tdm_rules(data: bytes) -> Iterator[tuple[str, bool]]:
    """Pattern and reservation of each entry; a file that is no JSON (an error page) has none."""
    try:
        value: Any = json.loads(decode_robots(data))
    except (ValueError, RecursionError):
        return
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict) and "tdm-reservation" in entry:
            location = entry.get("location", "/")
            if isinstance(location, str):
                path = urlsplit(location).path if "://" in location else location
                yield path or "/", str(entry["tdm-reservation"]) in ("1", "True")
