"""Which licence a page is under: what counts, what does not, and that nothing breaks it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.fetch.licences import find_licences, spdx

URL = "https://example.org/page.html"
BY = "https://creativecommons.org/licenses/by/4.0/"


def json_ld(value):
    return f'<script type="application/ld+json">{json.dumps(value)}</script>'


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("http://www.creativecommons.org/licenses/by/4.0/legalcode.en", "CC-BY-4.0"),
        ("//creativecommons.org/licenses/by/3.0/de/deed.en", "CC-BY-3.0-DE"),
        ("creativecommons.org/licenses/by-nc-nd/4.0", "CC-BY-NC-ND-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/deed.en", "PDM-1.0"),
        ("https://opendatacommons.org/licenses/odbl/1-0/", "ODbL-1.0"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("odbl-1.0", "ODbL-1.0"),
        # what is not known stays what it is, and so is on no list
        ("https://creativecommons.org/licenses/", "https://creativecommons.org/licenses/"),
        ("https://creativecommons.org.evil.example/licenses/by/4.0/", None),
        ("https://evil.example/?https://creativecommons.org/licenses/by/4.0/", None),
        ("/terms", "https://example.org/terms"),
        ("All rights reserved", "All rights reserved"),
        ("CC BY", "CC BY"),
        ("http://[", "http://["),
    ],
)
def test_addresses_and_names_become_spdx_names(value, name):
    assert spdx(value, URL) == (name or value)


@pytest.mark.parametrize(
    ("html", "how"),
    [
        (f'<footer><a href="{BY}" rel="nofollow LICENSE">x</a></footer>', "rel=license"),
        (f'<div id=footer><p><a href="{BY}" rel=license>x</a></div>', "rel=license"),
        (f'<div role=contentinfo><a href="{BY}" rel=license>x</a></div>', "rel=license"),
        (f'</body><head><link rel=license href="{BY}"></head>', "rel=license"),
        (f'<base href="{BY}"><footer><a rel=license href="../4.0/"></footer>', "rel=license"),
        (f'<article itemscope itemtype="//schema.org/Recipe"><a itemprop=license href="{BY}">',
         "microdata or RDFa"),
        (json_ld({"@type": "Recipe", "license": BY}), "JSON-LD"),
        (json_ld([{"@graph": [{"@type": "Article", "license": [{"url": BY}]}]}]), "JSON-LD"),
        (json_ld({"@type": "WebPage", "mainEntity": {"schema:license": {"@id": BY}}}), "JSON-LD"),
        (f'<p itemscope><link itemprop="license" href="{BY}">', "microdata or RDFa"),
        (f'<p property="dct:license cc:license" resource="{BY}">', "microdata or RDFa"),
        ("<p property='schema:license'> CC BY 4.0 </p>", "microdata or RDFa"),
        (f'<meta name="DCTERMS.license" content="{BY}">', "meta"),
    ],
)  # fmt: skip
def test_a_licence_is_found_in_every_kind_of_markup(html, how):
    before = "" if html.startswith("</body>") else "<body>"
    html = html.removeprefix("</body>")
    assert find_licences(f"<html>{before}{html}<p>text", URL) == ({"CC-BY-4.0": how}, {})


@pytest.mark.parametrize(
    "html",
    [
        "<p>All rights reserved. Licensed under CC BY 4.0, they say.",
        f'<a href="{BY}">a link to a licence</a>',
        json_ld({"@type": "Recipe", "image": {"@type": "ImageObject", "license": BY}}),
        json_ld({"@type": ["ImageObject", "Photograph"], "license": BY}),
        json_ld({"@type": "Article", "isBasedOn": {"@type": "Article", "license": BY}}),
        f'<!-- <a rel="license" href="{BY}"> -->',
        '<script type="application/ld+json">{"license": </script>',
        '<a rel="license">nowhere</a>',
        "",
    ],
)
def test_what_is_not_the_licence_of_the_page_does_not_count(html):
    assert find_licences(html, URL) == ({}, {})


LINK = f'<a rel="license" href="{BY}">CC BY</a>'


@pytest.mark.parametrize(
    "html",
    [
        f"<figure><img>{LINK}</figure>",
        f'<figure><img><footer>{LINK}</footer></figure>',
        f'<p class="wp-caption">{LINK}</p><footer>All rights reserved</footer>',
        f"<p>Photo: {LINK}</p>",
        f"<main><article class=comment><footer>{LINK}</footer></article></main>",
        f'<ol class="comments"><li><footer>{LINK}</footer></ol>',
        f"<aside><footer>{LINK}</footer></aside>",
        f"<footer>Photo: {LINK}. \u00a9 2024, All  rights reserved.</footer>",
        f'<p itemscope itemtype="//schema.org/ImageObject"><a itemprop="license" href="{BY}">',
        f'<div itemscope itemtype="//schema.org/Article"><p itemscope itemprop=comment '
        f'itemtype="//schema.org/Comment"><a itemprop="license" href="{BY}"></div>',
        f'<article itemscope><a itemprop=license href="{BY}"></a></article><article>b</article>',
        f'<p itemscope itemtype=x><a itemprop=license href="{BY}"></a><p itemscope itemtype=x>b',
        f'<div about="/photo.jpg"><a rel="license" property="license" href="{BY}">x</a></div>',
        f'<div resource="/photo.jpg"><a property="dct:license" href="{BY}">x</a></div>',
    ],
)  # fmt: skip
def test_the_licence_of_a_part_is_told_apart_from_that_of_the_page(html):
    page, parts = find_licences(f"<body>{html}", URL)
    assert page == {} and set(parts) == {"CC-BY-4.0"}


def test_the_link_header_counts_and_its_other_relations_do_not():
    header = f'<https://x.org/next>; rel="next", <{BY}>; title="a"; rel="license"'
    assert find_licences("<p>", URL, header) == ({"CC-BY-4.0": "Link header"}, {})


def test_every_licence_that_is_named_is_found():
    html = f"<footer>{LINK}</footer>" + json_ld({"license": "https://example.org/terms"})
    assert set(find_licences(html, URL)[0]) == {"CC-BY-4.0", "https://example.org/terms"}


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 50_000,
        '<base href="http://["><a rel="license" href="//[x">',
        "<" * 200_000,
        '<a rel="license" href="' * 5_000,
        f'<script type="application/ld+json">{"[" * 100_000}</script>',
        f'<script type="application/ld+json">{json.dumps({"@graph": []})[:-2] * 5_000}</script>',
        "<p property='" + "license " * 50_000 + "'>",
    ],
)
def test_a_page_that_is_made_to_hurt_is_read_in_a_moment(html):
    assert isinstance(find_licences(html, URL)[0], dict)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([
    "<a rel=license href='", "'>", "<p itemprop=license", ">", "<meta name=license content=", "\0",
    '<script type="application/ld+json">', '{"license":', '"', "}", "</script>", "[", "http://[",
    "//", "creativecommons.org/licenses/", "by/4.0", "\ud800", "&#x110000;", " ", "x",
])))  # fmt: skip
def test_any_markup_gives_licences_or_none(parts):
    page, rest = find_licences("".join(parts), URL)
    assert all({**page, **rest})
