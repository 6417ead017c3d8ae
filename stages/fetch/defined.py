"""What a dataset of the hub defines itself: configurations and splits, as `datasets` finds them.

`datasets` says which files a split has. JSON, CSV and Parquet are then read as any other file, so
that a row keeps its line and "007" its zeros; everything else (and what the card sets for its
reader) is read by `datasets`, row by row.
"""

from collections.abc import Iterator
from typing import Any

import datasets
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet

from finetune import params
from stages.fetch.streams import Record
from stages.fetch.tables import plain

OF_A_CARD = ("sep", "delimiter", "names", "column_names", "skiprows", "field", "quotechar")


class Defined:
    """One configuration of a dataset at its pinned commit; ValueError for one that is not there."""

    def __init__(self, source: params.Hub) -> None:
        self._source = source
        self._where = {"name": source.config, "revision": source.revision}
        datasets.disable_progress_bars()
        try:
            self._builder = datasets.load_dataset_builder(source.name, **self._where)
        except Exception as error:  # the library has kinds of its own for each step
            raise ValueError(f"{source.name}@{source.revision}: {_remedy(error)}") from None
        self._files = self._builder.config.data_files or {}

    def files(self, split: str) -> list[str] | None:
        """The paths of a split in the repository; None where `datasets` must read them."""
        if self._files and split not in self._files:
            raise ValueError(
                f"{self._source.name}@{self._source.revision} has no split {split!r} in "
                f"{self._builder.config.name}, only {', '.join(map(str, self._files))}"
            )
        config = self._builder.config
        told = any(getattr(config, each, None) not in (None, ",", '"') for each in OF_A_CARD)
        if told or not isinstance(self._builder, Json | Csv | Parquet):
            return None
        return [str(url).partition(f"@{self._source.revision}/")[2] for url in self._files[split]]

    def cite(self, split: str) -> str:
        """What a row's origin starts with."""
        config = self._builder.config.name
        return f"{self._source.name}@{self._source.revision}:{config}/{split}"

    def rows(self, split: str) -> Iterator[Record]:
        """The rows of a split; as a stream where `max_rows` caps them."""
        source, cited = self._source, self.cite(split)
        options: dict[str, Any] = {"split": split, "streaming": source.max_rows is not None}
        if isinstance(self._builder, Csv):  # "007" and "NA" are text
            options |= {"keep_default_na": False, "features": self._text_features(split)}
        try:
            rows = datasets.load_dataset(source.name, **self._where, **options)
            if source.columns:
                rows = rows.select_columns(list({**dict.fromkeys(source.columns), **source.filter}))
            for number, values in enumerate(rows, start=1):
                row = {key: plain(value, cited, key) for key, value in values.items()}
                yield Record.of(row, f":{number}")
        except (datasets.exceptions.DatasetsError, OSError, RuntimeError) as error:
            raise ValueError(f"{cited}: {_remedy(error)}") from None

    def _text_features(self, split: str) -> datasets.Features:
        """Every column as text, under the names that the files give."""
        options = {**self._where, "split": split, "streaming": True}
        first = next(iter(datasets.load_dataset(self._source.name, **options)))
        return datasets.Features({name: datasets.Value("string") for name in first})


def _remedy(error: Exception) -> str:
    """The first line of an error; for a dataset that is a script, what to do instead."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "scripts are no longer supported" in text:
        return (
            f"{text}: it is a program, which is not run here. Name its files in `files`, or pin "
            "the commit of its branch refs/convert/parquet"
        )
    return text
