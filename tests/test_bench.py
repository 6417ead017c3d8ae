"""The tables of bench/RESULTS.md are those of the raw results."""

from pathlib import Path

import pytest

from bench.tables import fill

PAGE = Path("bench/RESULTS.md").read_text(encoding="utf-8")


def test_every_table_is_what_its_file_of_results_gives():
    assert fill(PAGE) == PAGE
    assert "25,609" in PAGE


def test_a_missing_file_of_results_is_named():
    with pytest.raises(ValueError, match="gone.jsonl"):
        fill("<!-- results: gone.jsonl: step_s -->\n<!-- end -->")
