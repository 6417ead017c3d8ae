"""What the model was trained on, token by token: which ones it had to predict."""

from itertools import groupby

from finetune.text.tokens import Example, TokenRows
from stages.report.contents import Contents
from stages.report.elements import Html, card, element

SHOWN = 3


def mask_audit(run: Contents) -> Html:
    """The first training examples as they were trained on, supervised tokens marked."""
    from transformers import AutoTokenizer

    rows = TokenRows(run.root / "data/prepared/train")
    tokenizer = AutoTokenizer.from_pretrained(run.root / "models/base", local_files_only=True)
    shown = [_example(tokenizer, rows[at]) for at in range(min(SHOWN, len(rows)))]
    note = (
        f"The first {len(shown)} of {len(rows):,} training examples, special tokens included. "
        "Only marked tokens are learned."
    )
    return card("What is learned", *shown, note=note)


def _example(tokenizer: object, row: Example) -> Html:
    learned, ids = set(row.supervised().tolist()), row.input_ids.tolist()
    parts = []
    for inside, positions in groupby(range(len(ids)), key=learned.__contains__):
        text = tokenizer.decode([ids[at] for at in positions], skip_special_tokens=False)
        parts.append(element("mark", text) if inside else text)
    return element("pre", *parts, class_="example")
