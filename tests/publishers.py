"""Rows as the publishers of the presets' datasets write them: small, made up, in the real schema.

By name of the dataset: the path of a file in its repository, and the file. Schemas are those of
- Open Food Facts: openfoodfacts-exports, exports/parquet/food.py and common.py (the columns that
  presets read, and some of the hundred others). Of a text in several languages the first entry is
  the product's main one, `main`; a text that nobody has entered is an empty list.
- Wikipedia: the card of wikimedia/wikipedia (id, url, title, text).
- GitHub code: the card of codeparrot/github-code-clean and its loading script.
- Law Stack Exchange: the card of jonathanli/law-stack-exchange (the columns that presets read).
- the Cookbook: a page of Wikibooks as MediaWiki writes it.
"""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

_TEXT, _TAGS = pa.string(), pa.list_(pa.string())
_LANGUAGES = pa.list_(pa.struct([("lang", _TEXT), ("text", _TEXT)]))
_FOOD = pa.schema(
    [
        ("additives_n", pa.int32()),
        ("additives_tags", _TAGS),
        ("brands", _TEXT),
        ("categories", _TEXT),
        ("code", _TEXT),
        ("generic_name", _LANGUAGES),
        ("ingredients_text", _LANGUAGES),
        ("labels", _TEXT),
        ("lang", _TEXT),
        ("packaging_text", _LANGUAGES),
        ("product_name", _LANGUAGES),
    ]
)
_WIKIPEDIA = pa.schema([(name, _TEXT) for name in ("id", "url", "title", "text")])
_CODE = pa.schema(
    [
        *((name, _TEXT) for name in ("code", "repo_name", "path", "language", "license")),
        ("size", pa.int32()),
    ]
)


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
    return file.getvalue()


def _product(code: str, **columns: Any) -> dict[str, Any]:
    """A product; a text given as such is that of its main language."""
    names = ("generic_name", "ingredients_text", "packaging_text", "product_name")
    texts = {name: columns.pop(name, None) for name in names}
    lists = {
        name: [{"lang": "main", "text": text}] if isinstance(text, str) else text or []
        for name, text in texts.items()
    }
    tags = {"additives_n": 0, "additives_tags": [], "categories": "Cereals", "lang": "en"}
    return {**dict.fromkeys(_FOOD.names), **tags, "code": code, **lists, **columns}


_OATS = [
    {"lang": "main", "text": 'Flocons d\'avoine "Bio"'},
    {"lang": "fr", "text": 'Flocons d\'avoine "Bio"'},
    {"lang": "en", "text": "Organic rolled oats"},
]
PRODUCTS = [
    _product(
        "0001",
        product_name=_OATS,
        generic_name="Flocons d'avoine complète",
        ingredients_text="Flocons d'_avoine_ complète 100 %.",
        brands="Moulin Vert",
        labels="Organic,EU Organic",
    ),
    _product(  # no brand, no labels
        "0002",
        product_name="Tomato passata",
        generic_name="Sieved tomatoes",
        ingredients_text="Tomatoes, salt.",
    ),
    _product("0003", product_name="Mystery bar", brands="Hobbin"),  # nothing else was entered
    _product("0004", product_name='"-"', generic_name='"A', ingredients_text="-", brands="Hobbin"),
    _product("0005", ingredients_text="Sugar, cocoa butter.", generic_name="White chocolate"),
]
_PROSE = (
    "It is eaten in most of the world, and has been for as long as there are records of what "
    "people ate. Cooks value it for its taste and for the way in which it keeps. It is used with "
    "salt and with oil, and it is often served with bread. Doctors have studied what it does "
    "in the body, and most of them agree that a little of it each day is good for the heart. "
)
ARTICLES = [
    {"title": "Sorbic acid", "text": f"Sorbic acid is a food additive, a preservative. {_PROSE}"},
    {
        "title": "Kimchi",
        "text": f"Kimchi belongs to the cuisine of Korea, and has vitamin C. {_PROSE}",
    },
    {"title": "Stub", "text": "Stub is a dish of the cuisine of nowhere."},
    {
        "title": "Nord",
        "text": "Die Ernährung in der Nordsee, englisch nutrition, ist reich an Jod. " * 8,
    },
    {"title": "Tennis", "text": "Tennis is a sport that is played with a racket. " * 9},
]
CODE = [
    {
        "code": "def salt(sodium):\n\n\n    return sodium * 2.5\n",
        "path": "salt.py",
        "license": "mit",
    },
    {"code": "int main(void) { return 0; }\n", "path": "main.c", "license": "gpl-3.0"},
]
QUESTIONS = [
    {
        "link": f"https://law.stackexchange.com/questions/{number}",
        "title": title,
        "body": body,
        "score": 3,
        "tags": ["contract-law"],
        "text_label": "contract-law",
        "label": 3,
    }
    for number, (title, body) in enumerate(
        [
            (
                "Is a contract on a napkin valid?",
                "We agreed on a price & signed a napkin.\n\nIs it?",
            ),
            (
                "Can a landlord keep the deposit?",
                "He says that the walls are scratched. They are not.",
            ),
            ("Who owns a photo of me?", "A stranger took a photo of me and sells it on a mug."),
        ]
    )
]
_STEPS = (
    "Soak the lentils overnight, then drain and rinse them in a sieve under the tap.",
    "Fry the onion in the oil until it is soft and golden, and stir in the spices for a minute.",
    "Add the lentils with a litre of water, and simmer for half an hour with the lid on.",
    "Season with salt and with the juice of a lemon, and serve it hot with bread.",
)
_FRENCH = (
    "Faites tremper les lentilles toute la nuit, puis égouttez et rincez dans une passoire.",
    "Faites revenir l'oignon dans l'huile jusqu'à ce qu'il soit tendre, ajoutez les épices.",
    "Ajoutez les lentilles et un litre d'eau, et laissez mijoter une demi-heure à couvert.",
)


def _wiki(title: str, body: str) -> str:
    licence = "https://creativecommons.org/licenses/by-sa/4.0/deed.en"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"><title>Cookbook:{title} - '
        "Wikibooks, open books for an open world</title>"
        f'<link rel="license" href="{licence}"></head><body class="mediawiki">'
        '<div id="mw-navigation"><ul><li><a href="/wiki/Main_Page">Main Page</a></li></ul></div>'
        f'<div id="content" class="mw-body" role="main"><h1 id="firstHeading">Cookbook:{title}</h1>'
        '<div id="bodyContent"><div id="mw-content-text"><div class="mw-parser-output">'
        f"{body}</div></div></div></div>"
        '<footer id="footer"><p>Text is available under the <a rel="license" '
        f'href="{licence}">Creative Commons Attribution-ShareAlike License</a>.</p></footer>'
        "</body></html>"
    )


def _heading(text: str) -> str:
    return (
        f'<div class="mw-heading mw-heading2"><h2 id="{text}">{text}</h2><span '
        'class="mw-editsection">[<a href="/edit">edit</a> | <a href="/source">edit source</a>]'
        "</span></div>"
    )


def _list(kind: str, items: tuple[str, ...]) -> str:
    return f"<{kind}>{''.join(f'<li>{each}</li>' for each in items)}</{kind}>"


_LENTILS = ("200 g of brown lentils", "1 onion, chopped", "2 tablespoons of olive oil", "salt")
COOKBOOK = {
    "Lentil_Soup": _wiki(
        "Lentil Soup",
        "<p>This is a soup that is made in much of the Levant. It keeps for three days.</p>"
        + _heading("Ingredients")
        + _list("ul", _LENTILS)
        + _heading("Procedure")
        + _list("ol", _STEPS),
    ),
    "Soupe_aux_lentilles": _wiki("Soupe aux lentilles", _list("ol", _FRENCH)),
    "Table_of_Contents": _wiki(
        "Table of Contents",
        _list("ul", tuple(f'<a href="/wiki/Cookbook:{n}">Recipe {n}</a>' for n in range(60))),
    ),
}


def capture(pages: dict[str, str], root: str) -> bytes:
    """Pages by name as a WARC file, as a crawl leaves them."""
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=True)
    for name, page in pages.items():
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
        body = io.BytesIO(page.encode())
        writer.write_record(
            writer.create_warc_record(f"{root}{name}", "response", body, http_headers=headers)
        )
    return file.getvalue()


_ADDRESS = "https://en.wikipedia.org/wiki/"
DATASETS: dict[str, tuple[str, bytes]] = {
    "openfoodfacts/product-database": ("food.parquet", _parquet(PRODUCTS, _FOOD)),
    "wikimedia/wikipedia": (
        "20231101.en/train-00000-of-00041.parquet",
        _parquet(
            [
                {"id": str(n), "url": _ADDRESS + each["title"], **each}
                for n, each in enumerate(ARTICLES)
            ],
            _WIKIPEDIA,
        ),
    ),
    "codeparrot/github-code-clean": (
        "data/train-00000-of-00880.parquet",
        _parquet(
            [{"repo_name": "someone/kitchen", "language": "C", "size": 9, **each} for each in CODE],
            _CODE,
        ),
    ),
    "jonathanli/law-stack-exchange": (
        "train.jsonl",
        "".join(json.dumps(each) + "\n" for each in QUESTIONS).encode(),
    ),
}
SITES = {"https://en.wikibooks.org/wiki/Cookbook:": COOKBOOK}
