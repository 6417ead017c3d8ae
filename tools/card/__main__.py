"""Write the model card of a run: what it gained and forgot, on which data, at what cost.

    python -m tools.card                          # to the screen
    python -m tools.card --kind merged --out README.md

Everything comes from dvc.lock and the files that it names; the last table of the card says from
where each figure is. Without date or path: the same run gives the same bytes.
"""

import argparse
from pathlib import Path

from finetune.errors import run
from tools.card.making import LIBRARIES, make_card
from tools.record import Record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.card",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=LIBRARIES, default="adapter", help="what it is a card of")
    parser.add_argument("--out", type=Path, help="file to write; without it the screen")
    arguments = parser.parse_args()
    card = make_card(Record(), arguments.kind)
    if arguments.out:
        card.save(arguments.out)
    else:
        print(card.content, end="")


if __name__ == "__main__":
    run(main)
