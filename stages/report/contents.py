"""All that the page shows, read from the files that the other stages wrote."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune.params import Params, load
from stages.evaluate.predictions import Prediction, parse_predictions


@dataclass(frozen=True)
class Contents:
    """One run. Everything is read when it is shown; `root` is the root of the repository."""

    root: Path
    params: Params
    cost: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.params.name

    @cached_property
    def base(self) -> dict[str, Any]:
        return self.json("metrics/baseline.json")

    @cached_property
    def tuned(self) -> dict[str, Any]:
        return self.json("metrics/tuned.json")

    @cached_property
    def pairs(self) -> list[tuple[Prediction, Prediction]]:
        """Base and tuned on each test row."""
        both = [self._predictions(name) for name in ("baseline", "tuned")]
        return list(zip(*both, strict=True))

    def json(self, path: str) -> Any:
        """The value of a JSON file."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """The text of a file."""
        return (self.root / path).read_text(encoding="utf-8")

    def _predictions(self, name: str) -> list[Prediction]:
        path = f"data/predictions/{name}.jsonl"
        return parse_predictions(self.text(path), path)


def read_contents(root: Path, cost: Path | None = None) -> Contents:
    """The run whose files are under `root`. Raises ValueError for an invalid params.yaml."""
    found = json.loads(cost.read_text(encoding="utf-8")) if cost else None
    return Contents(root, load(root / "params.yaml"), found)
