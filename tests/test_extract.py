"""Pages become text: structured data first, then selectors, then the main content."""

import gzip
import io
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from stages.preprocess.documents import Rejected
from stages.preprocess.extract import (
    CAPTURE,
    MAX_PAGE_BYTES,
    MAX_TAGS,
    check_selectors,
    extract,
    extract_row,
)
from stages.preprocess.structured import thing_text

RECIPE = {
    "@context": "https://schema.org",
    "@type": "Recipe",
    "name": "Cacio e pepe",
    "description": "Three things &amp; a <b>pan</b>.",
    "recipeYield": ["4", "4 servings"],
    "prepTime": "PT5M",
    "cookTime": "PT1H10M",
    "recipeIngredient": ["400 g tonnarelli", "200 g pecorino"],
    "recipeInstructions": [
        {
            "@type": "HowToSection",
            "name": "Sauce",
            "itemListElement": [{"@type": "HowToStep", "text": "Grind the pepper."}],
        },
        {"@type": "HowToStep", "text": "Boil the pasta."},
    ],
    "nutrition": {"@type": "NutritionInformation", "calories": "540 kcal", "fatContent": "18 g"},
}
RECIPE_TEXT = """Three things & a pan.

Yield: 4, 4 servings
Preparation: 5 min
Cooking: 1 h 10 min

## Ingredients

- 400 g tonnarelli
- 200 g pecorino

## Method

### Sauce
1. Grind the pepper.
2. Boil the pasta.

## Nutrition

- calories: 540 kcal
- fat: 18 g"""


def _json_ld(*things):
    scripts = "".join(f'<script type="application/ld+json">{each}</script>' for each in things)
    return f"<html><head><title>Site</title>{scripts}</head><body><p>Main text.</p></body></html>"


def test_a_recipe_in_json_ld_is_written_as_a_cook_would():
    columns = extract(_json_ld(json.dumps(RECIPE)), {})
    assert columns == {"title": "Cacio e pepe", "text": RECIPE_TEXT}


@pytest.mark.parametrize(
    "value",
    [
        {"@context": "https://schema.org", "@graph": [{"@type": "WebPage"}, RECIPE]},
        [RECIPE],
        {"@type": "WebPage", "mainEntity": RECIPE},
        {**RECIPE, "@type": ["Recipe", "NewsArticle"]},
        {**RECIPE, "@type": "https://schema.org/Recipe"},
    ],
    ids=["graph", "list", "entity", "two-types", "address"],
)
def test_a_recipe_is_found_wherever_json_ld_holds_it(value):
    assert extract(_json_ld(json.dumps(value)), {})["text"] == RECIPE_TEXT


@pytest.mark.parametrize(
    "steps",
    [
        "Boil.\nDrain.",
        "<p>Boil.</p><p>Drain.</p>",
        ["Boil.", "Drain."],
        [{"text": "Boil."}, {"name": "Drain."}],
    ],
)
def test_steps_are_numbered_in_whatever_form_they_come(steps):
    thing = {"@type": "Recipe", "name": "Pasta", "recipeInstructions": steps}
    assert extract(_json_ld(json.dumps(thing)), {})["text"] == "## Method\n\n1. Boil.\n2. Drain."


def test_a_product_keeps_brand_ingredients_and_composition():
    thing = {
        "@type": "Product",
        "name": "Crispbread",
        "brand": {"@type": "Brand", "name": "Vesterholm"},
        "description": "Baked overnight.",
        "additionalProperty": [
            {"@type": "PropertyValue", "name": "salt", "value": 1.1, "unitText": "g"}
        ],
    }
    assert extract(_json_ld(json.dumps(thing)), {}) == {
        "title": "Crispbread",
        "text": "Brand: Vesterholm\n\nBaked overnight.\n\n## Composition\n\n- salt: 1.1 g",
    }


MICRODATA = """<html><body><nav>Home</nav>
<div itemscope itemtype="https://schema.org/Recipe">
  <h1 itemprop="name">Soup</h1>
  <meta itemprop="prepTime" content="PT20M"><time itemprop="cookTime" datetime="PT1H">an hour</time>
  <ul><li itemprop="recipeIngredient">1 leek</li>
  <li itemprop="recipeIngredient">2 potatoes</li></ul>
  <div itemprop="author" itemscope itemtype="https://schema.org/Person">
    <span itemprop="name">Ann</span></div>
  <ol itemprop="recipeInstructions"><li>Chop.</li><li>Simmer.</li></ol>
  <div itemprop="nutrition" itemscope><span itemprop="calories">90 kcal</span></div>
</div></body></html>"""


def test_a_recipe_in_microdata_is_written_the_same_way():
    assert extract(MICRODATA, {}) == {
        "title": "Soup",
        "text": "Preparation: 20 min\nCooking: 1 h\n\n## Ingredients\n\n- 1 leek\n- 2 potatoes\n\n"
        "## Method\n\n1. Chop.\n2. Simmer.\n\n## Nutrition\n\n- calories: 90 kcal",
    }


@pytest.mark.parametrize("broken", ["{", "", "null", '{"@type": 7}', "[[[[[1]]]]]", '"Recipe"'])
def test_broken_json_ld_leaves_the_main_content(broken):
    assert extract(_json_ld(broken), {}) == {"title": "Site", "text": "Main text."}


def test_a_sound_script_counts_behind_a_broken_one():
    assert extract(_json_ld("{broken", json.dumps(RECIPE)), {})["text"] == RECIPE_TEXT


ARTICLE = """<html><head><title>Salt | The Site</title><style>p {}</style></head><body>
<header><a href="/">The Site</a></header><nav><ul><li><a href="/a">All</a></li></ul></nav>
<div class="cookie-banner"><p>We use cookies.</p></div>
<main><h1>Where the salt hides</h1><p>Bread is <em>salty</em>,<br>cheese
  too.</p><h2 id="comments">In numbers</h2>
<table><tr><th>Food</th><th>g</th></tr><tr><td>Bread</td><td>1.1</td></tr></table>
<h2>See also</h2><ul><li><a href="/x">Sugar</a></li><li><a href="/y">Fat</a></li></ul>
<h2>What to do</h2>
<ol><li>Read <a href="/l">labels</a>.</li><li>Cook:<ul><li>rice</li></ul></li></ol>
<pre>salt = sodium * 2.5
  # about</pre><aside><p>Buy our book!</p></aside><p hidden>secret</p><script>x = 1</script></main>
<footer><p>All rights reserved.</p></footer></body></html>"""
ARTICLE_TEXT = """Bread is salty,
cheese too.

## In numbers

Food | g
Bread | 1.1

## What to do

1. Read labels.
2. Cook:
  - rice

salt = sodium * 2.5
  # about"""


def test_main_content_keeps_headings_lists_and_tables_and_leaves_boilerplate_out():
    assert extract(ARTICLE, {}) == {"title": "Where the salt hides", "text": ARTICLE_TEXT}


def test_without_a_main_element_the_part_with_most_text_is_taken():
    more = "Salt and yeast go in as soon as it has doubled in the bowl. " * 4
    words = "Flour and water make a dough that rests overnight. " * 4
    page = f"""<body><div class=login><a href=/in>Login</a></div>
    <div id=x><p>{words}</p><p>{more}</p></div>
    <div class=sidebar><p>Contact us here.</p></div></body>"""
    text = extract(page, {})["text"]
    assert (text.count("dough"), text.count("yeast")) == (4, 4)
    assert "Login" not in text and "Contact" not in text


@pytest.mark.parametrize(
    "tag",
    ["time", "abbr", "data", "small", "cite", "mark", "kbd", "var", "q", "b", "i", "sub", "span"],
)
def test_no_word_is_lost_within_a_sentence(tag):
    sentence = f"<p>It takes <{tag}>forty minutes</{tag}> until the crust is brown and crisp.</p>"
    page = f"<main><h1>Pie</h1>{sentence}<p>Serve it hot, with a salad of leaves.</p></main>"
    assert "It takes forty minutes until the crust" in extract(page, {})["text"]


def _within_an_article(html):
    """What the main text has for some HTML."""
    start, end = "It starts with a sentence of some length.", "It ends with another one of them."
    text = extract(f"<main><p>{start}</p>{html}<p>{end}</p></main>", {})["text"]
    return text.removeprefix(start).removesuffix(end).strip()


FORMULA = "<mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup>"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("10<sup>6</sup> km and 10<sup>-6</sup>", "10^6 km and 10^-6"),
        ("5 m<sup>2</sup> or <i>x</i><sup>n+1</sup>", "5 m^2 or x^(n+1)"),
        ("the 1<sup>st</sup> and M<sup>me</sup>", "the 1st and Mme"),
        ("Acme<sup>TM</sup> of <sup>14</sup>C", "AcmeTM of 14C"),
        ("1<sup>1</sup>/<sub>2</sub> or <sup>3</sup>/<sub>4</sub>", "1 1/2 or 3/4"),
        ("3<sup>1/2</sup> cups of H<sub>2</sub>O", "3 1/2 cups of H2O"),
        ("since 2010<sup>[3]</sup>", "since 2010[3]"),
        ('since 2010<sup class="noteref">3</sup>', "since 20103"),
        ("<table><tr><td>CO<sub>2</sub><td>m<sup>2</sup></table>", "CO2 | m^2"),
        ("2010</p><p><sup>1</sup> Smith", "2010\n\n1 Smith"),
        (f'Of <math alttext="E=mc^2">{FORMULA}</math> J', "Of E=mc^2 J"),
        (f'Of <math>{FORMULA}<annotation encoding="application/x-tex">E</annotation></math> J',
         "Of E J"),
        (f"Of <math><!-- x -->{FORMULA}</math> J", "Of E=mc^2 J"),
        ('Of <span style="display: none;"><math alttext="{\\displaystyle x}"></math></span> J',
         "Of x J"),
        ('Of <span class="MathJax_Preview">[x]</span><script type="math/tex">c<d</script> J',
         "Of c<d J"),
        ('<script type="math/tex; mode=display">c+d</script> it is', "c+d it is"),
    ],
)  # fmt: skip
def test_powers_fractions_and_formulas_of_a_page_are_readable(html, text):
    assert _within_an_article(f"<p>{html}</p>") == text


def test_a_heading_and_a_selector_spell_out_what_they_have():
    page = "<main><h1>CO<sub>2</sub></h1><b>5 m<sup>2</sup></b><p>Some text of it.</p></main>"
    columns = extract(page, {"size": "b"})
    assert (columns["title"], columns["size"]) == ("CO2", "5 m^2")


def test_a_list_counts_as_its_page_says():
    items = "<li><p>five</p></li><li>six<ol start=3><li>in</li></ol></li><li value=9>nine</li>"
    page = f"<ol start=5>{items}<li>ten</li></ol><ul><li value=3>u</li></ul>"
    text = "5. five\n6. six\n  3. in\n9. nine\n10. ten\n\n- u"
    assert _within_an_article(page) == text
    assert extract(f"<body>{page}</body>", {"text": "body"})["text"] == text


def test_a_page_of_powers_takes_time_in_proportion_to_it():
    page = "<main><p>" + "x<sup>2</sup> y<sub>2</sub> " * 10_000 + "</p></main>"
    started = time.process_time()
    assert extract(page, {})["text"].count("x^2 y2") == 10_000
    assert time.process_time() - started < 20  # a search for each place takes minutes


def _step(text):
    thing = {"@type": "Recipe", "name": "Pasta", "recipeInstructions": [text]}
    return extract(_json_ld(json.dumps(thing)), {})["text"].removeprefix("## Method\n\n1. ")


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("Bake if x < 5 and y > 3.", "Bake if x < 5 and y > 3."),
        ("keep at <5 C for > 2 h", "keep at <5 C for > 2 h"),
        ("Ask <ann@example.com> <b class='x'>well</b><br/>", "Ask <ann@example.com> well"),
        ("Mix<!-- <b>not</b> so --> it <o:p>well</o:p>.", "Mix it well."),
        ("1<sup>1</sup>/<sub>2</sub> cups, <sup>1</sup>&frasl;<sub>4</sub>", "1 1/2 cups, 1⁄4"),
        ("10<sup class=a>6</sup> or <i>x</i><sup>&minus;2</sup>", "10^6 or x^−2"),
        ("1<sup>st</sup> of H<sub>2</sub>O<sup>[1]</sup>", "1st of H2O[1]"),
    ],
)
def test_a_step_of_a_recipe_loses_its_tags_and_nothing_else(step, text):
    assert _step(step) == text


def test_a_recipe_in_microdata_has_fractions_too():
    page = MICRODATA.replace("1 leek", "1<sup>1</sup>/<sub>2</sub> leeks")
    assert "- 1 1/2 leeks\n" in extract(page, {})["text"]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("PT1.5H", "1 h 30 min"),
        ("PT0,25H", "15 min"),
        ("P0.5D", "12 h"),
        ("PT90M", "90 min"),
        ("P0DT0H30M0S", "30 min"),
    ],
)
def test_a_duration_may_be_a_fraction(told, text):
    thing = {"@type": "Recipe", "name": "Pasta", "totalTime": told}
    assert extract(_json_ld(json.dumps(thing)), {})["text"] == f"Total time: {text}"


@pytest.mark.parametrize(
    "piece",
    ["<!--", "<!-->", "<sup>", "<sup ", "<sup>1</sup>", "<sup>1</sup>/<sub>", "<a ", "</", "<!a"],
)
def test_no_text_of_a_recipe_takes_long(piece):
    text = piece * (100_000 // len(piece) * 4)
    started = time.process_time()
    thing_text({"@type": "Recipe", "description": text})
    assert time.process_time() - started < 10


def test_a_product_block_does_not_replace_an_article():
    article = "".join(
        f"<p>Sentence number {n} of a long article on salt mills.</p>" for n in range(40)
    )
    block = json.dumps({"@type": "Product", "name": "Mill", "brand": "Acme"})
    page = _json_ld(block).replace("<p>Main text.</p>", f"<h1>Salt</h1>{article}")
    columns = extract(page, {})
    assert columns["title"] == "Salt"
    assert columns["text"].count("Sentence number") == 40


def test_a_selector_of_a_label_does_not_replace_the_page_but_one_of_text_does():
    article = "".join(f"<p>Sentence number {n} of a long article on tea.</p>" for n in range(40))
    page = f"<body><h1>Tea</h1><b id=w>100 g</b><main>{article}</main></body>"
    columns = extract(page, {"weight": "#w", "title": "h1"})
    assert (columns["title"], columns["weight"]) == ("Tea", "100 g")
    assert columns["text"].count("Sentence number") == 40
    assert extract(page, {"text": "#w"})["text"] == "100 g"


def test_text_spread_over_many_boxes_is_kept_whole():
    page = (
        "<body>" + "".join(f"<div><p>Paragraph {n} of it.</p></div>" for n in range(9)) + "</body>"
    )
    assert extract(page, {})["text"].count("Paragraph") == 9


def test_selectors_from_params_fill_columns_of_their_own():
    page = "<h1>Tea</h1><div class=what><p>Black tea.</p><p>Smoked.</p></div><b id=w>100 g</b>"
    columns = extract(page, {"text": ".what", "weight": "#w", "none": ".missing"})
    assert columns == {
        "title": "Tea",
        "text": "Black tea.\n\nSmoked.",
        "weight": "100 g",
        "none": "",
    }


def test_structured_data_goes_before_selectors_and_both_give_columns():
    page = _json_ld(json.dumps({"@type": "Recipe", "name": "Tea", "description": "Boil water."}))
    columns = extract(page, {"main": "p"})
    assert columns == {"title": "Tea", "text": "Boil water.", "main": "Main text."}


def test_where_selectors_find_nothing_the_main_content_is_left():
    assert extract("<body><p>Just this.</p></body>", {"text": ".missing"})["text"] == "Just this."


def test_a_selector_that_is_no_css_is_named():
    with pytest.raises(ValueError, match=r"preprocess.selectors.shop.price is 'a\[\['"):
        check_selectors({"shop": {"title": "h1", "price": "a[["}})


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<b>" * (2 * MAX_TAGS + 1), "page_too_large"),
        ("<" * (2 * MAX_TAGS + 1), "page_too_large"),
    ],
)
def test_a_page_of_too_many_tags_is_rejected(page, reason):
    with pytest.raises(Rejected, match=reason):
        extract(page, {})


@pytest.mark.parametrize("tag", ["div", "b", "ul><li", "table><tr><td", "blockquote"])
def test_tags_nested_ever_deeper_are_rejected(tag):
    assert "deep" in extract(f"<{tag}>" * 30 + "deep", {})["text"]
    with pytest.raises(Rejected, match="page_too_deep"):
        extract(f"<{tag}>" * 5_000 + "deep", {})


def test_json_nested_ever_deeper_costs_no_crash():
    deep = '{"@type": "Recipe", "recipeInstructions": ' + "[" * 50_000 + "]" * 50_000 + "}"
    assert extract(_json_ld(deep), {})["text"] == "Main text."
    nested = RECIPE
    for _ in range(100):
        nested = {"@type": "Thing", "about": nested}
    assert extract(_json_ld(json.dumps(nested)), {})["text"] == "Main text."


PIECES = [
    "<p>",
    "</p>",
    "<ul>",
    "<li>",
    "</ul>",
    "<h1>",
    "</h1>",
    "<table>",
    "<td>",
    "<br>",
    "<main>",
    "</",
    "<!--",
    "-->",
    "&amp;",
    "&#0;",
    "é",
    "x",
    "{",
    "}",
    "<div/itemscope/itemtype=Recipe>",
    "<b/itemprop=name>",
    "<script/type=application/ld+json>",
    "</script>",
    '{"@type":"Recipe"',
    "\x00",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, " "]), max_size=60).map("".join))
def test_any_page_gives_text_or_a_reason(page):
    try:
        columns = extract(page, {"first": "p, li"})
    except Rejected:
        return
    assert all(isinstance(value, str) for value in columns.values())


def _capture(folder, body, headers=(), status="200 OK"):
    with (folder / CAPTURE).open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        offsets = []
        for each in (b"<p>first</p>", body):
            offsets.append(file.tell())
            http = StatusAndHeaders(status, list(headers), protocol="HTTP/1.1")
            record = writer.create_warc_record(
                "https://example.org/", "response", payload=io.BytesIO(each), http_headers=http
            )
            writer.write_record(record)
    return {"url": "https://example.org/", "warc_offset": offsets[1], "content_type": ""}


HTML = ("Content-Type", "text/html; charset=utf-8")


def test_a_row_is_found_in_its_capture_by_its_offset(tmp_path):
    row = _capture(tmp_path, b"<h1>Second</h1><p>Its text.</p>", [HTML])
    columns = extract_row(row, tmp_path, {})
    assert (columns["url"], columns["title"]) == ("https://example.org/", "Second")
    assert columns["text"] == "Its text."


@pytest.mark.parametrize(
    ("encoding", "header", "meta"),
    [
        ("utf-8", "text/html; charset=utf-8", ""),
        ("latin-1", "text/html; charset=iso-8859-1", ""),
        ("utf-8", "text/html", '<meta charset="utf-8">'),
        ("shift_jis", "text/html", '<meta charset="shift_jis">'),
        ("utf-16", "text/html", ""),
        ("utf-8-sig", "text/html", ""),
    ],
)  # fmt: skip
def test_a_page_is_read_in_its_own_encoding(tmp_path, encoding, header, meta):
    text = "日本の味" if encoding == "shift_jis" else "Crème brûlée"
    body = f"<html><head>{meta}</head><body><p>{text}</p></body></html>".encode(encoding)
    row = _capture(tmp_path, body, [("Content-Type", header)])
    assert extract_row(row, tmp_path, {})["text"] == text


def test_a_compressed_page_is_read_and_a_bomb_is_not(tmp_path):
    headers = [HTML, ("Content-Encoding", "gzip")]
    row = _capture(tmp_path, gzip.compress(b"<p>Packed.</p>"), headers)
    assert extract_row(row, tmp_path, {})["text"] == "Packed."
    row = _capture(tmp_path, gzip.compress(b" " * (MAX_PAGE_BYTES + 1)), headers)
    with pytest.raises(Rejected, match="page_too_large"):
        extract_row(row, tmp_path, {})


@pytest.mark.parametrize("kind", ["image/png", "application/json", "text/plain; charset=utf-8"])
def test_what_is_no_page_is_rejected(tmp_path, kind):
    row = _capture(tmp_path, b"data", [("Content-Type", kind)])
    with pytest.raises(Rejected, match="page_is_no_html"):
        extract_row(row, tmp_path, {})


@pytest.mark.parametrize("offset", [1, 10**9])
def test_a_place_without_a_record_is_an_error_that_names_the_capture(tmp_path, offset):
    row = _capture(tmp_path, b"<p>x</p>", [HTML])
    with pytest.raises(ValueError, match=f"{CAPTURE} has no record at {offset}"):
        extract_row({**row, "warc_offset": offset}, tmp_path, {})
