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
        (f'<a href="{BY}" rel="nofollow LICENSE">x</a>', "rel=license"),
        (f'<link rel=license href="{BY}">', "rel=license"),
        (f'<base href="{BY}"><a rel=license href="../4.0/">', "rel=license"),
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
    assert find_licences(f"<html><body>{html}<p>text", URL) == {"CC-BY-4.0": how}


@pytest.mark.parametrize(
    "html",
    [
        "<p>All rights reserved. Licensed under CC BY 4.0, they say.",
        f'<a href="{BY}">a link to a licence</a>',
        f'<figure><img><a rel="license" href="{BY}">of the picture</a></figure>',
        json_ld({"@type": "Recipe", "image": {"@type": "ImageObject", "license": BY}}),
        json_ld({"@type": ["ImageObject", "Photograph"], "license": BY}),
        json_ld({"@type": "Article", "isBasedOn": {"@type": "Article", "license": BY}}),
        f'<p itemscope itemtype="//schema.org/ImageObject"><a itemprop="license" href="{BY}">',
        f'<!-- <a rel="license" href="{BY}"> -->',
        '<script type="application/ld+json">{"license": </script>',
        '<a rel="license">nowhere</a>',
        "",
    ],
)
def test_what_is_not_the_licence_of_the_page_does_not_count(html):
    assert find_licences(html, URL) == {}


def test_the_link_header_counts_and_its_other_relations_do_not():
    header = f'<https://x.org/next>; rel="next", <{BY}>; title="a"; rel="license"'
    assert find_licences("<p>", URL, header) == {"CC-BY-4.0": "Link header"}


def test_every_licence_that_is_named_is_found():
    html = f'<a rel="license" href="{BY}">' + json_ld({"license": "https://example.org/terms"})
    assert set(find_licences(html, URL)) == {"CC-BY-4.0", "https://example.org/terms"}


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
    assert isinstance(find_licences(html, URL), dict)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([
    "<a rel=license href='", "'>", "<p itemprop=license", ">", "<meta name=license content=", "\0",
    '<script type="application/ld+json">', '{"license":', '"', "}", "</script>", "[", "http://[",
    "//", "creativecommons.org/licenses/", "by/4.0", "\ud800", "&#x110000;", " ", "x",
])))  # fmt: skip
def test_any_markup_gives_licences_or_none(parts):
    assert all(find_licences("".join(parts), URL))
