"""Write the tables of bench/RESULTS.md from the raw results under bench/results.

    python -m bench.tables

A table stands between `<!-- results: FILE.jsonl: COLUMN COLUMN ... -->` and `<!-- end -->`, a row
for each line of the file: what was measured, in the order in which it was measured.
"""

import json
import re
from pathlib import Path
from typing import Any

PAGE, RESULTS = Path("bench/RESULTS.md"), Path("bench/results")
_TABLE = re.compile(r"(<!-- results: (\S+): ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(fill(text), encoding="utf-8")


def fill(page: str) -> str:
    """The page with every marked table made anew. Raises ValueError for a file that is missing."""
    return _TABLE.sub(lambda match: match[1] + draw(match[2], match[3].split()) + match[4], page)


def draw(name: str, columns: list[str]) -> str:
    """A Markdown table of one file of results."""
    path = RESULTS / name
    if not path.is_file():
        raise ValueError(f"{PAGE} names {path}, which does not exist")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [f"| {' | '.join(['run', *columns])} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(key)) for key in ['run', *columns])} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
