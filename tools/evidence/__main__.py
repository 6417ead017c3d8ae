"""Put the evidence of a run into one folder: what was run, of what, under which licences.

    python -m tools.evidence                            # reports/evidence
    python -m tools.evidence --sign key.pem             # and sign the adapter and the folder
    python -m tools.evidence --verify [public.pem]      # is everything still what it was?

From dvc.lock, the manifests and metrics of the run. The same run at the same commit gives the same
bytes (but for signatures). Where a file is not the one of the run, nothing is written.
"""

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from finetune.errors import run
from tools.record import ADAPTER, METRICS, Record

OUT = Path("reports/evidence")
STATEMENT, BOM, CROISSANT, CONTENT, CARD = (
    "provenance.json",
    "bom.cdx.json",
    "croissant.json",
    "training-content-inputs.json",
    "model-card.md",
)
ADAPTER_SIGNATURE, FOLDER_SIGNATURE = "adapter.sig", "evidence.sig"

log = logging.getLogger(__name__)


def main() -> None:
    arguments = _parse()
    if arguments.verify is not None:
        check(Record(), arguments.out, arguments.verify)
    else:
        write(Record(), arguments.out, arguments.sign)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.evidence",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--sign", type=Path, metavar="KEY", help="private key, PEM")
    either.add_argument(
        "--verify", nargs="?", const=Path(), type=Path, metavar="KEY", help="public key, PEM"
    )
    return parser.parse_args()


def write(record: Record, out: Path, key: Path | None = None) -> None:
    """Write the folder, all or nothing. Raises ValueError where a file is of another run."""
    from tools.card.making import make_card
    from tools.evidence import bom, croissant, provenance, training_content
    from tools.evidence.commit import read_commit

    commit = read_commit(record.root, besides=out)
    record.check(*METRICS, ADAPTER)
    made: dict[str, Any] = {
        STATEMENT: provenance.make_statement(record, commit),
        BOM: bom.make_bom(record, commit),
        CROISSANT: croissant.make_croissant(record, commit, out),
        CONTENT: training_content.make_inputs(record),
    }
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, value in made.items():
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (partial / name).write_text(text, encoding="utf-8")
    make_card(record).save(partial / CARD)
    if key:
        _sign(record, partial, key)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    state = f", {len(commit.changed)} path(s) differ from it" if commit.changed else ""
    log.info(f"written: {out}, of commit {commit.sha[:12]}{state}")


def check(record: Record, out: Path, key: Path) -> None:
    """Compare what is here with the statement; with a key, with the signatures too.

    Raises ValueError, naming each, for what differs.
    """
    from tools.evidence import bom, provenance, signature

    same, missing = provenance.verify(record, provenance.read_statement(out / STATEMENT))
    bom.check(json.loads((out / BOM).read_text(encoding="utf-8")))
    log.info(f"{same} products are what {out / STATEMENT} says")
    if missing:
        log.info(f"not on this machine, so not checked: {', '.join(missing)}")
    signed = (out / ADAPTER_SIGNATURE).exists()
    if key != Path():
        signature.verify(record.root / ADAPTER, out / ADAPTER_SIGNATURE, key)
        signature.verify(out, out / FOLDER_SIGNATURE, key)
        log.info(f"{ADAPTER} and {out} are what the owner of {key} signed")
    elif signed:
        log.info("signatures not checked: name the public key, --verify KEY")


def _sign(record: Record, out: Path, key: Path) -> None:
    from tools.evidence import signature

    signature.sign(record.root / ADAPTER, out / ADAPTER_SIGNATURE, key)
    signature.sign(out, out / FOLDER_SIGNATURE, key)


if __name__ == "__main__":
    run(main)
