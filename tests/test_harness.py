"""lm-evaluation-harness on an adapter, where it is installed: a local task, nothing fetched."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.test_generate_tool import adapter  # noqa: F401  (a fixture)
from tools.assistant import load_assistant
from tools.harness import HARNESS, main

TASK = """
task: titles
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{body}}}}"
doc_to_choice: "{{{{titles}}}}"
doc_to_target: right
metric_list:
  - metric: acc
"""
ROWS = [
    ("my landlord kept the deposit?", ["deposit kept", "police ticket"]),
    ("employer fired without notice?", ["fence tree", "fired notice"]),
    ("pay owed contract signed?", ["pay owed", "tree police"]),
]


def test_without_the_harness_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("tools.harness.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"pip install {HARNESS}"):
        main()


def test_a_local_task_scores_what_the_adapter_gives(adapter, monkeypatch):  # noqa: F811
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(Path("datasets").absolute()))
    lines = [
        json.dumps({"body": body, "titles": titles, "right": 0}) + "\n" for body, titles in ROWS
    ]
    Path("tasks").mkdir()
    Path("tasks/rows.jsonl").write_text("".join(lines), encoding="utf-8")
    task = TASK.format(file=Path("tasks/rows.jsonl").absolute())
    Path("tasks/titles.yaml").write_text(task, encoding="utf-8")
    options = ["--model", "adapter", "--model_args", "low_memory=True", "--device", "cpu"]
    options += ["--tasks", "titles", "--include_path", "tasks"]
    options += ["--output_path", "out", "--log_samples"]
    monkeypatch.setattr(sys, "argv", ["harness", "run", *options])
    main()
    [path] = Path("out").rglob("samples_titles_*.jsonl")
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [float(got[0]) for sample in samples for got in sample["filtered_resps"]]
    loaded = load_assistant(adapter, "cpu")
    wanted = [_log_likelihood(loaded, body, " " + title) for body, both in ROWS for title in both]
    assert found == pytest.approx(wanted, abs=1e-3)


def _log_likelihood(loaded, context: str, rest: str) -> float:
    """Of `rest` after `context`, in nats."""
    before, whole = (
        loaded.tokenizer(text, add_special_tokens=False).input_ids
        for text in (context, context + rest)
    )
    assert whole[: len(before)] == before
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(logits[at - 1, whole[at]].item() for at in range(len(before), len(whole)))
