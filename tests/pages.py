"""Pages of twenty-odd kinds as sites write them, each with the text that a reader came for."""

# ruff: noqa: E501, lines of HTML as sites write them

import json

P = [
    "Bread is the saltiest thing that most people eat every day, and hardly anybody tastes it.",
    "A slice of rye holds about half a gram of salt, so four slices are a third of what is advised.",
    "Bakers need it: salt slows the yeast down, tightens the gluten and keeps the crumb from drying.",
    "When the ministry asked for a tenth less, no customer in the survey noticed any difference.",
    "Cheese comes second, with feta and blue cheeses far ahead of quark and fresh mozzarella.",
    "Soups from a packet are third, because water is cheap and salt makes it taste of something.",
    "Whoever cooks at home decides for himself, which is why the figures of restaurants are higher.",
    "The laboratory measured sodium and multiplied by two and a half, as the regulation prescribes.",
]
NAV = '<nav><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li><li><a href="/about">About us</a></li></ul></nav>'
FOOT = '<footer><p>© 2024 Crumb Media Ltd. All rights reserved.</p><ul><li><a href="/imprint">Imprint</a></li><li><a href="/privacy">Privacy policy</a></li></ul></footer>'
COOKIES = '<div id="cookie-banner" class="cookie-consent"><p>We use cookies to improve your experience. By continuing you accept our use of cookies.</p><button>Accept all</button></div>'
RELATED = '<div class="related-posts"><h3>Related posts</h3><ul><li><a href="/a">Ten oils compared</a></li><li><a href="/b">Why butter browns</a></li></ul></div>'
SHARE = '<div class="share-buttons"><a href="#">Share on Facebook</a> <a href="#">Tweet</a></div>'


def _page(body, head="", title="Where the salt hides", lang="en"):
    return f'<!doctype html><html lang="{lang}"><head><meta charset="utf-8"><title>{title} | Crumb</title>{head}</head><body>{body}</body></html>'


def _p(*texts):
    return "".join(f"<p>{text}</p>" for text in texts)


def _ld(thing):
    return f'<script type="application/ld+json">{json.dumps({"@context": "https://schema.org", **thing})}</script>'


def _text(*blocks):
    return "\n\n".join(blocks)


H1 = "<h1>Where the salt hides</h1>"

RECIPE = {
    "@type": "Recipe",
    "name": "Lentil soup",
    "description": "A thick soup for cold evenings that is better on the second day.",
    "recipeYield": "4 servings",
    "recipeIngredient": [
        "250 g brown lentils",
        "2 carrots",
        "1 onion",
        "1 litre of stock",
        "1 bay leaf",
    ],
    "recipeInstructions": [
        {
            "@type": "HowToStep",
            "text": "Chop the onion and the carrots and soften them in oil for ten minutes.",
        },
        {
            "@type": "HowToStep",
            "text": "Add the lentils, the stock and the bay leaf and simmer for forty minutes.",
        },
        {"@type": "HowToStep", "text": "Take the bay leaf out and season with vinegar."},
    ],
}
RECIPE_TEXT = _text(
    RECIPE["description"],
    "Yield: 4 servings",
    "## Ingredients",
    "\n".join(f"- {each}" for each in RECIPE["recipeIngredient"]),
    "## Method",
    "\n".join(f"{n}. {each['text']}" for n, each in enumerate(RECIPE["recipeInstructions"], 1)),
)
STORY = "<p>When I was a child my grandmother had a pot on the stove all winter.</p><p>Scroll down for the recipe, or read on about our holiday in Tuscany.</p>"

QUESTION = "How do I keep a sourdough starter alive while I am away for three weeks in summer?"
ANSWERS = [
    "Feed it, let it stand for an hour and put it into the fridge; three weeks do it no harm at all.",
    "Dry a part of it on baking paper as a reserve. The flakes keep for a year and wake up in two days.",
]
GERMAN = [
    "Brot ist das salzigste Lebensmittel, das die meisten Menschen täglich essen, und kaum jemand schmeckt es.",
    "Eine Scheibe Roggenbrot enthält rund ein halbes Gramm Salz; vier Scheiben sind ein Drittel der Empfehlung.",
    "Der Bäcker braucht es: Salz bremst die Hefe, strafft den Kleber und hält die Krume länger feucht.",
    "Als das Ministerium ein Zehntel weniger verlangte, bemerkte in der Umfrage niemand einen Unterschied.",
]
JAPANESE = [
    "味噌汁は日本の食卓に欠かせない料理であり、地域によって使う味噌の種類が大きく異なります。",
    "だしは昆布と鰹節から取るのが基本で、沸騰させないことが香りを残すこつだと言われています。",
    "具には豆腐、わかめ、大根などの季節の野菜を使い、最後に味噌を溶いてすぐに火を止めます。",
]
CODE = 'def salt(sodium):\n    """Grams of salt."""\n\n    return sodium * 2.5'
ROWS = [
    ("Food", "Salt in g", "Share"),
    ("Rye bread", "1.1", "22 %"),
    ("Feta", "2.6", "52 %"),
    ("Gouda", "1.9", "38 %"),
    ("Pretzel", "2.2", "44 %"),
    ("Olives", "3.3", "66 %"),
]


def _table(rows):
    head = "".join(f"<th>{cell}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(rows):
    return "\n".join(" | ".join(row) for row in rows)


def _wiki_heading(text):
    return f'<h2><span class="mw-headline">{text}</span><span class="mw-editsection"><span class="mw-editsection-bracket">[</span><a href="/edit">edit</a><span> | </span><a href="/source">edit source</a><span class="mw-editsection-bracket">]</span></span></h2>'


def _elementor(*texts):
    return "".join(
        f'<div class="elementor-element elementor-widget elementor-widget-text-editor"><div class="elementor-widget-container">{_p(text)}</div></div>'
        for text in texts
    )


PAGES = {
    "article": (_page(f"<header>{NAV}</header><main><article>{H1}{_p(*P[:3])}<h2>In numbers</h2>{_p(*P[3:6])}</article></main>{FOOT}"), _text(*P[:3], "## In numbers", *P[3:6])),
    "article without main": (_page(f"<div class=top>{NAV}</div><div class=content>{H1}{_p(*P)}</div><div class=sidebar><h3>Popular</h3><ul><li><a href=/x>Oils</a></li></ul></div>{FOOT}"), _text(*P)),
    "recipe json-ld": (_page(f"{NAV}<main><h1>Lentil soup</h1>{STORY}</main>{FOOT}", _ld(RECIPE)), RECIPE_TEXT),
    "recipe microdata": (_page(f'{NAV}<div itemscope itemtype="https://schema.org/Recipe"><h1 itemprop="name">Lentil soup</h1><p itemprop="description">{RECIPE["description"]}</p><span itemprop="recipeYield">4 servings</span><ul>' + "".join(f'<li itemprop="recipeIngredient">{each}</li>' for each in RECIPE["recipeIngredient"]) + '</ul><ol itemprop="recipeInstructions">' + "".join(f"<li>{each['text']}</li>" for each in RECIPE["recipeInstructions"]) + f"</ol></div>{FOOT}"), RECIPE_TEXT),
    "article with a product block": (_page(f"{NAV}<main><article>{H1}{_p(*P)}</article></main>{FOOT}", _ld({"@type": "Product", "name": "Salt mill", "brand": "Acme", "description": ""})), _text(*P)),
    "forum": (_page(f'{NAV}<div class="topic"><h1>Starter on holiday</h1><div class="post"><div class="post-author">anna77</div><div class="post-body"><p>{QUESTION}</p></div></div>' + "".join(f'<div class="post"><div class="post-author">baker{n}</div><div class="post-body"><p>{each}</p></div></div>' for n, each in enumerate(ANSWERS)) + f"</div>{FOOT}"), _text(QUESTION, *ANSWERS)),
    "question and answers": (_page(f'{NAV}<main><h1>Sourdough while away</h1><div class="question"><div class="s-prose">{_p(QUESTION, P[2])}</div></div>' + "".join(f'<div class="answer"><div class="s-prose">{_p(each)}</div></div>' for each in ANSWERS) + f"</main>{FOOT}"), _text(QUESTION, P[2], *ANSWERS)),
    "documentation": (_page(f'<div class="sphinxsidebar"><ul><li><a href="#">Contents</a></li></ul></div><div class="document"><div class="body" role="main"><section><h1>Salt from sodium</h1>{_p(P[7])}<pre><code>{CODE}</code></pre><p>The function returns a float.</p><h2>Arguments</h2><ul><li>sodium in grams</li><li>never negative</li></ul></section></div></div><div class="footer">Created using Sphinx.</div>'), _text(P[7], CODE, "The function returns a float.", "## Arguments", "- sodium in grams\n- never negative")),
    "wiki": (_page(f'<div id="mw-navigation">{NAV}</div><div id="content" class="mw-body"><h1>Salt</h1><div id="mw-content-text"><div class="mw-parser-output">{_p(P[0])}<div id="toc" class="toc"><h2>Contents</h2><ul><li><a href="#u">1 Uses</a></li></ul></div>{_wiki_heading("Uses")}{_p(P[2], P[4])}{_wiki_heading("Measuring")}{_p(P[7])}</div></div></div>{FOOT}'), _text(P[0], "## Uses", P[2], P[4], "## Measuring", P[7])),
    "elementor": (_page(f'<header class="elementor-location-header">{NAV}</header><div data-elementor-type="wp-post" class="elementor elementor-12"><section class="elementor-section"><div class="elementor-container"><div class="elementor-column"><div class="elementor-widget-wrap"><div class="elementor-element elementor-widget elementor-widget-heading"><h1 class="elementor-heading-title">Where the salt hides</h1></div>{_elementor(*P[:6])}</div></div></div></section></div>{FOOT}'), _text(*P[:6])),
    "blogger": (_page(f"<div class='main-outer'><div class='widget Blog' id='Blog1'><div class='blog-posts hfeed'><div class='post hentry'><h3 class='post-title entry-title'>Where the salt hides</h3><div class='post-body entry-content'>{'<br/><br/>'.join(P[:6])}</div><div class='post-footer'><span>Posted by Ann at 09:14</span></div></div></div></div></div><div class='sidebar widget'><h2>Blog Archive</h2><ul><li><a href=/2023>2023</a></li></ul></div>"), _text(*P[:6])),
    "shopify product": (_page(f'{NAV}<main><div class="product"><h1>Olive oil</h1><span class="price">$12.00</span><form><button>Add to cart</button></form><div class="product__description rte"><p>Pressed within six hours from Arbequina olives of a single grove near Lleida.</p><p>Fruity, with green almond and a little pepper; for salads, not for frying.</p></div></div></main>{FOOT}', _ld({"@type": "Product", "name": "Olive oil", "brand": {"@type": "Brand", "name": "Grove"}, "description": "Pressed within six hours from Arbequina olives of a single grove near Lleida.\n\nFruity, with green almond and a little pepper; for salads, not for frying.", "offers": {"@type": "Offer", "price": "12.00"}})), "Brand: Grove\n\nPressed within six hours from Arbequina olives of a single grove near Lleida.\n\nFruity, with green almond and a little pepper; for salads, not for frying."),
    "table": (_page(f"{NAV}<main>{H1}{_p(P[7])}{_table(ROWS)}{_p(P[4])}</main>{FOOT}"), _text(P[7], _cells(ROWS), P[4])),
    "list": (_page(f"{NAV}<main>{H1}{_p(P[6])}<ol>" + "".join(f"<li>{each}</li>" for each in P[:6]) + f"</ol></main>{FOOT}"), _text(P[6], "\n".join(f"{n}. {each}" for n, each in enumerate(P[:6], 1)))),
    "cookie banner": (_page(f"{COOKIES}{NAV}<main>{H1}{_p(*P[:5])}{SHARE}{RELATED}</main>{COOKIES}{FOOT}"), _text(*P[:5])),
    "comments": (_page(f'{NAV}<article>{H1}{_p(*P[:6])}</article><section id="comments" class="comments-area"><h2>3 thoughts on salt</h2><ol class="comment-list"><li class="comment"><p>First! Great post, thank you so much for sharing this with all of us.</p></li><li class="comment"><p>I disagree, my doctor says that salt is fine in any amount whatsoever.</p></li></ol></section>{FOOT}'), _text(*P[:6])),
    "german": (_page(f'{NAV}<main><article><h1>Wo das Salz steckt</h1>{_p(*GERMAN[:2])}<h2>Warum Salz</h2>{_p(*GERMAN[2:])}</article></main><footer><p>Impressum | Datenschutz | AGB</p></footer>', title="Wo das Salz steckt", lang="de"), _text(*GERMAN[:2], "## Warum Salz", *GERMAN[2:])),
    "japanese": (_page(f'<nav><ul><li><a href="/">ホーム</a></li></ul></nav><main><article><h1>味噌汁の作り方</h1>{_p(*JAPANESE)}</article></main><footer><p>お問い合わせ</p></footer>', title="味噌汁の作り方", lang="ja"), _text(*JAPANESE)),
    "legacy tables": (f'<html><head><title>Salt page</title></head><body bgcolor="#ffffff"><table width="100%"><tr><td width="150" valign="top"><a href="a.html">Home</a><br><a href="b.html">Links</a><br><a href="c.html">Guestbook</a></td><td valign="top"><h1>Salt page</h1><p>{P[0]}<p>{P[1]}<p>{P[2]}<p>{P[3]}</td></tr></table><center><font size="1">Best viewed with 800x600</font></center></body></html>', _text(*P[:4])),
    "amp": (f'<!doctype html><html amp lang="en"><head><meta charset="utf-8"><title>Where the salt hides</title><script async src="x.js"></script><style amp-custom>p {{}}</style></head><body><amp-sidebar id="s"><ul><li>Home</li></ul></amp-sidebar><main><article><h1>Where the salt hides</h1><amp-img src="a.jpg"></amp-img>{_p(*P[:5])}<amp-ad type="x"></amp-ad></article></main><amp-consent><div>We care about your privacy</div></amp-consent></body></html>', _text(*P[:5])),
    "divs without paragraphs": (_page(f"{NAV}<div id=content>{H1}" + "".join(f"<div>{each}</div>" for each in P[:6]) + f"</div>{FOOT}"), _text(*P[:6])),
    "short note": (_page(f"{NAV}<main>{H1}{_p(P[3])}</main>{FOOT}"), P[3]),
    "definition list": (_page(f"{NAV}<main><h1>Glossary</h1>{_p(P[7])}<dl><dt>Sodium</dt><dd>The part of salt that matters to the blood pressure of most adults.</dd><dt>Gluten</dt><dd>The protein that makes a dough elastic when it is kneaded long enough.</dd></dl></main>{FOOT}"), _text(P[7], "Sodium", "The part of salt that matters to the blood pressure of most adults.", "Gluten", "The protein that makes a dough elastic when it is kneaded long enough.")),
    "quotes": (_page(f"{NAV}<article>{H1}{_p(P[0], P[1])}<blockquote>{_p(P[3])}</blockquote>{_p(P[6])}</article>{FOOT}"), _text(P[0], P[1], P[3], P[6])),
    "asp.net form": (_page(f'<form method="post" action="/page.aspx" id="aspnetForm"><input type="hidden" name="__VIEWSTATE" value="x">{NAV}<div id="ctl00_Content">{H1}{_p(*P[:5])}</div><select><option>Deutsch</option></select></form>{FOOT}'), _text(*P[:5])),
    "highlighted code": (_page(f'{NAV}<article>{H1}{_p(P[7])}<div class="highlight"><pre><span class="k">def</span> <span class="nf">salt</span>(sodium):\n    <span class="k">return</span> sodium * <span class="mf">2.5</span>\n</pre></div>{_p(*P[1:4])}</article>{FOOT}'), _text(P[7], "def salt(sodium):\n    return sodium * 2.5", *P[1:4])),
    "long story before a recipe": (_page(f"{NAV}<main><h1>Lentil soup</h1>{STORY}{_p(*P)}{STORY}</main>{FOOT}", _ld({"@graph": [{"@type": "WebPage", "name": "Soup"}, RECIPE]})), RECIPE_TEXT),
    "french wiki": (_page('<div id="content" class="mw-body"><h1>Sel</h1><div class="mw-parser-output"><p>Le pain est l’aliment le plus salé que la plupart des gens mangent chaque jour.</p><h2>Usages <span>[<a href="/e">modifier</a> | <a href="/s">modifier le code</a>]</span></h2><p>Le sel ralentit la levure, resserre le gluten et garde la mie humide plus longtemps.</p></div></div>', title="Sel", lang="fr"), _text("Le pain est l’aliment le plus salé que la plupart des gens mangent chaque jour.", "## Usages", "Le sel ralentit la levure, resserre le gluten et garde la mie humide plus longtemps.")),
    "equal rows": (_page(f"{NAV}<main>{H1}{_p(P[7])}{_table([ROWS[0], ('Rye bread', '1.1', '22 %'), ('Wheat bread', '1.1', '22 %'), ('Rusk', '1.1', '22 %')])}{_p(P[4])}<ul><li>salt</li><li>water</li><li>flour</li></ul></main>{FOOT}"), _text(P[7], _cells([ROWS[0], ("Rye bread", "1.1", "22 %"), ("Wheat bread", "1.1", "22 %"), ("Rusk", "1.1", "22 %")]), P[4], "- salt\n- water\n- flour")),
    "menu of dishes": (_page(f"{NAV}<main><h1>Lunch</h1>" + "".join(f"<h2>{day}</h2><p>{dish}</p>" for day, dish in zip(("Monday", "Tuesday", "Wednesday"), P[:3], strict=True)) + f"</main>{FOOT}"), "## Monday\n\n" + P[0] + "\n\n## Tuesday\n\n" + P[1] + "\n\n## Wednesday\n\n" + P[2]),
    "page builder with widgets": (_page(f'<div class="header-widget">{NAV}</div><div class="widget content-widget">{H1}' + "".join(f'<div class="widget text-widget banner-text">{_p(each)}</div>' for each in P[:6]) + f'</div><div class="widget footer-widget"><p>Find us on Instagram</p></div>{FOOT}'), _text(*P[:6])),
    "more comments than article": (_page(f'{NAV}<article>{H1}{_p(*P[:4])}</article><div id="comments" class="comments-area"><h2>40 comments</h2><ol class="comment-list">' + "".join(f'<li class="comment"><p>Comment number {n}: I have tried this at home and it was a complete disaster for me.</p></li>' for n in range(12)) + f"</ol></div>{FOOT}"), _text(*P[:4])),
    "article in many sections": (_page(f"{NAV}<main>{H1}" + "".join(f"<section><h2>Part {n}</h2>{_p(each)}</section>" for n, each in enumerate(P, 1)) + f"</main>{FOOT}"), _text(*(f"## Part {n}\n\n{each}" for n, each in enumerate(P, 1)))),
    "accessible article": (_page(f'<header role="banner">{NAV}</header><div role="main">{H1}{_p(*P[:4])}<figure><img src="a.jpg" alt="Bread"><figcaption>Rye bread from Cologne</figcaption></figure>{_p(*P[4:])}</div><div role="complementary"><p>Subscribe to our magazine now</p></div><div role="contentinfo"><p>Contact the press office</p></div>'), _text(*P)),
    "list of links": (_page(f"{NAV}<main>{H1}{_p(*P[:4])}<h2>See also</h2><ul>" + "".join(f'<li><a href="/{n}">Article number {n}</a></li>' for n in range(12)) + f"</ul></main>{FOOT}"), _text(*P[:4])),
}  # fmt: skip
