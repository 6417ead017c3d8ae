"""Write the trained model in the form that other tools load, and score that form.

    python -m tools.export adapter | merged | gguf | gguf-adapter
    python -m tools.export push --form merged --to OWNER/NAME

`adapter` is what PEFT, vLLM and SGLang load beside a base model; `merged` one model in 16 bits;
`gguf` and `gguf-adapter` what llama.cpp and Ollama run. Every form is scored on the test rows that
the adapter was scored on: metrics/export-KIND.json holds loss and main score of both and their
paired differences, and the command fails where the loss is more than export.max_loss_gap above the
adapter's. `push` uploads a form that was written and scored to the Hugging Face Hub. Kinds that are
listed in export.kinds are stages of `dvc repro`.
"""

import argparse
from pathlib import Path

from finetune.errors import run
from finetune.params import load
from stages.export.__main__ import export
from stages.export.writing import KINDS, Form
from tools.push import push


def main() -> None:
    arguments, params = _parse(), load()
    if arguments.kind == "push":
        push(arguments, params)
        return
    folder = arguments.out / arguments.kind
    form = Form(arguments.kind, folder, arguments.adapter, arguments.base, arguments.type)
    metrics = arguments.metrics / f"export-{arguments.kind}.json"
    scored = export(form, params, arguments.test, metrics, arguments.rows)

    from tools.card.making import write_card_if_possible  # which imports the hub's client

    write_card_if_possible(form.folder, form.kind, adapter=form.adapter, scored=scored)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=[*KINDS, "push"])
    parser.add_argument("--adapter", type=Path, default=Path("models/adapter"))
    parser.add_argument("--out", type=Path, default=Path("models/export"))
    parser.add_argument("--test", type=Path, default=Path("data/prepared/test"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument(
        "--base",
        choices=["quantised", "original"],
        default="quantised",
        help="the weights under the adapter: the 4-bit ones that were trained on, unpacked, or "
        "the original ones",
    )
    parser.add_argument("--type", choices=["f16", "q8_0"], default="f16", help="of gguf")
    parser.add_argument("--rows", type=int, default=100, help="test rows to score; 0: do not")
    parser.add_argument("--form", choices=KINDS, default="merged", help="what push uploads")
    parser.add_argument("--to", help="OWNER/NAME of the repository that push writes to")
    parser.add_argument("--public", action="store_true", help="a repository that push makes")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
