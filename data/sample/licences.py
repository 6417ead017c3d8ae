"""How licences.jsonl was made: licence notices and what they grant, from ScanCode's rules.

    pip download --no-deps licensedcode-data==32.1.0
    python data/sample/licences.py licensedcode_data-32.1.0-py3-none-any.whl data/sample/licences.jsonl

The same wheel gives the same bytes.
"""

import hashlib
import json
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

SHA256 = "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96"
WORDS = range(15, 101)  # of a notice
LEAST = 80  # notices that a label must have
PER_LABEL = 60


def main(wheel: str, target: str) -> None:
    found = hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"error: {wheel} has sha256 {found}, not {SHA256} (licensedcode-data 32.1.0)")
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name.rpartition("/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if re.fullmatch(r"licensedcode/data/.*\.(RULE|LICENSE)", name)
        }
    spdx = {field(text, "key"): field(text, "spdx_license_key") for text in texts.values()}
    notices = defaultdict(list)
    for name, text in texts.items():
        label = spdx.get(field(text, "license_expression"), "")
        notice = re.sub(r"\{\{|\}\}", "", text.split("\n---\n", 1)[-1]).strip()
        if field(text, "is_license_notice") == "yes" and label and not label.startswith("License"):
            if len(notice.split()) in WORDS:
                notices[label].append({"id": name, "notice": notice, "spdx": label})
    rows = [
        row
        for label, all_of_it in sorted(notices.items())
        if len(all_of_it) >= LEAST
        for row in sorted(all_of_it, key=place)[:PER_LABEL]
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in sorted(rows, key=place)]
    Path(target).write_text("".join(lines), encoding="utf-8")


def field(text: str, name: str) -> str:
    """A field of a rule's or licence's header; "" where it has none."""
    header = text.split("\n---\n", 1)[0]
    found = re.search(rf"^{name}: (.*)$", header, re.M)
    return found[1].strip() if found else ""


def place(row: dict[str, str]) -> tuple[str, str]:
    """Where a row stands: by its text's hash."""
    return hashlib.sha256(row["notice"].encode()).hexdigest(), row["id"]


if __name__ == "__main__":
    main(*sys.argv[1:])
