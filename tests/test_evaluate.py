"""Evaluation: what is scored, what is compared with what, and what is refused."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.checkpoints import seal
from finetune.flat import attention
from finetune.generation import answer_prompts
from finetune.model.load import add_lora, load_base
from finetune.params import Evaluate, load
from finetune.text.tokens import TokenRows, TokenWriter
from stages.evaluate.__main__ import main
from stages.evaluate.answers import score_and_answer
from stages.evaluate.checkpoint import choose
from stages.evaluate.losses import row_losses
from stages.evaluate.metrics import compare, summarize
from stages.evaluate.predictions import Prediction, read_predictions, write_predictions
from stages.evaluate.questions import read_questions
from stages.evaluate.report import comparison, write_report

ROW = Prediction(
    id="00ff",
    source="law",
    question="My landlord kept the deposit of the flat",
    reference="Can a landlord keep it",
    answer="Can a landlord do that",
    loss=6.0,
    tokens=3,
    rouge1=0.6,
    rougeL=0.6,
    length=5,
    ended=True,
)


def _split(folder: Path, rows: list[dict]) -> Path:
    """A test split of rows with id, source, input_ids, spans, question and reference."""
    with TokenWriter(folder) as writer:
        for row in rows:
            writer.write(row["id"], row["source"], row["input_ids"], row["spans"])
    names = ("id", "source", "question", "reference")
    texts = [{name: row[name] for name in names} for row in rows]
    (folder / "texts.jsonl").write_text(
        "".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8"
    )
    return folder


def _rows(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"{at:016x}",
            "source": "law" if at % 2 else "food",
            "input_ids": rng.integers(3, 90, size=6 + at % 5).tolist(),
            "spans": [4, 6 + at % 5],
            "question": f"question {at}",
            "reference": f"reference {at}",
        }
        for at in range(count)
    ]


class WORDS:  # noqa: N801 (stands for a tokenizer)
    """Token n is the word n."""

    eos_token_id = 2

    @staticmethod
    def decode(ids: list[int], **_: object) -> str:
        return " ".join(map(str, ids))


@pytest.fixture
def split(tmp_path) -> Path:
    return _split(tmp_path / "test", _rows(9))


def test_the_prompt_ends_where_the_answer_begins(split):
    question = read_questions(split, 1)[0]
    assert question.prompt() == question.row.input_ids[:4].tolist()


def test_max_rows_takes_the_same_rows_whatever_else_is_in_the_split(tmp_path):
    few = read_questions(_split(tmp_path / "few", _rows(9)), 4)
    many = read_questions(_split(tmp_path / "many", list(reversed(_rows(9)))), 4)
    assert [q.row.id for q in few] == [q.row.id for q in many]
    assert len(read_questions(tmp_path / "few", None)) == 9


def test_texts_that_do_not_belong_to_the_tokens_are_refused(split):
    texts = (split / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    (split / "texts.jsonl").write_text("\n".join(reversed(texts)), encoding="utf-8")
    with pytest.raises(ValueError, match="texts.jsonl has .* repro --force preprocess"):
        read_questions(split, None)
    (split / "texts.jsonl").write_text("\n".join(texts[1:]), encoding="utf-8")
    with pytest.raises(ValueError, match="texts.jsonl has 8 rows, the tokens have 9"):
        read_questions(split, None)


def test_a_row_without_a_supervised_token_is_refused(tmp_path):
    rows = [{**_rows(1)[0], "spans": []}]
    with pytest.raises(ValueError, match="no supervised token"):
        read_questions(_split(tmp_path / "test", rows), None)


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no row"):
        read_questions(_split(tmp_path / "test", []), None)


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    attention.register()
    config = LlamaConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation=attention.NAME)


@pytest.mark.parametrize("batch_tokens", [1, 20, 1000])
@pytest.mark.parametrize("implementation", [attention.NAME, "eager"])
def test_a_rows_loss_is_that_of_its_supervised_tokens_alone(
    model, split, batch_tokens, implementation
):
    model.set_attn_implementation(implementation)
    rows = [TokenRows(split)[at] for at in range(9)]
    for row, loss in zip(rows, row_losses(model, rows, batch_tokens), strict=True):
        ids = torch.tensor(row.input_ids.tolist())
        with torch.no_grad():
            chances = model(ids[None]).logits[0].log_softmax(-1)
        expected = -sum(float(chances[p - 1, ids[p]]) for p in range(4, len(ids)))
        assert loss == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 60, 1000])
@pytest.mark.parametrize("spans", [[4, 6], [1, 2, 3, 4, 5, 6], [1, 6]])
def test_reading_a_question_once_gives_its_loss_and_its_answer(
    model, tmp_path, batch_tokens, spans
):
    rows = [{**row, "spans": [*spans[:-1], len(row["input_ids"])]} for row in _rows(9)]
    questions = read_questions(_split(tmp_path / "test", rows), None)
    settings = Evaluate("best", None, 5, batch_tokens, 10)
    found = score_and_answer(model, WORDS, questions, settings)
    losses = row_losses(model, [each.row for each in questions], 1000)
    assert [loss for loss, _ in found] == pytest.approx(losses, abs=1e-4)
    prompts = [each.prompt() for each in questions]
    answers = answer_prompts(model, WORDS, prompts, max_new_tokens=5, batch_tokens=1000)
    assert [answer for _, answer in found] == answers


def test_the_loss_weighs_tokens_and_the_other_scores_weigh_rows():
    long = replace(ROW, loss=10.0, tokens=7, rougeL=0.2, ended=False, length=32)
    metrics = summarize([ROW, long])
    assert metrics["loss"] == 1.6
    assert (metrics["rougeL"], metrics["stop_rate"], metrics["length"]) == (0.4, 0.5, 18.5)
    assert metrics["rows"] == 2
    assert "source" not in metrics


def test_several_sources_have_a_loss_each():
    metrics = summarize([ROW, replace(ROW, source="food", loss=3.0)])
    assert metrics["source"] == {"food": 1.0, "law": 2.0}


def test_the_trivial_answer_is_scored_beside_the_model():
    # "My landlord kept the deposit" against "Can a landlord keep it": 1 of 5 words each way.
    assert summarize([ROW])["trivial"] == {"rouge1": 0.2, "rougeL": 0.2}


def test_texts_without_questions_have_a_perplexity_and_no_answers():
    text = replace(ROW, question="", reference="", answer="", rouge1=0.0, rougeL=0.0)
    assert summarize([text]) == {"rows": 1, "loss": 2.0, "perplexity": round(math.exp(2), 4)}
    assert set(compare([text], [text], samples=10, seed=0)) == {"loss", "loss_low", "loss_high"}


def test_the_difference_is_tuned_minus_base():
    tuned = replace(ROW, loss=3.0, rougeL=0.8)
    found = compare([ROW] * 3, [tuned] * 3, samples=10, seed=0)
    assert found["loss"] == found["loss_low"] == found["loss_high"] == -1.0
    assert found["rougeL"] == pytest.approx(0.2)


def test_predictions_are_read_as_they_were_written(split, tmp_path):
    questions = read_questions(split, None)
    predictions = [_predicted(question) for question in questions]
    write_predictions(tmp_path / "predictions" / "base.jsonl", predictions)
    assert read_predictions(tmp_path / "predictions" / "base.jsonl", questions) == predictions


@pytest.mark.parametrize("change", ["fewer", "reordered", "reworded"])
def test_a_baseline_of_other_rows_is_refused(split, tmp_path, change):
    questions = read_questions(split, None)
    predictions = [_predicted(question) for question in questions]
    if change == "fewer":
        predictions = predictions[1:]
    elif change == "reordered":
        predictions = predictions[::-1]
    else:
        predictions[0] = replace(predictions[0], question="another wording")
    write_predictions(tmp_path / "base.jsonl", predictions)
    with pytest.raises(ValueError, match="run `dvc repro baseline`"):
        read_predictions(tmp_path / "base.jsonl", questions)


def _predicted(question) -> Prediction:
    return replace(
        ROW,
        id=question.row.id,
        question=question.question,
        reference=question.reference,
        tokens=len(question.row.supervised()),
    )


def test_any_checkpoint_can_be_chosen(tmp_path):
    for folder in ("adapter", "checkpoints/step-9", "checkpoints/step-10"):
        (tmp_path / f".{folder}").mkdir(parents=True)
        (tmp_path / f".{folder}" / "adapter_config.json").write_text("{}", encoding="utf-8")
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        seal(tmp_path / f".{folder}", tmp_path / folder)
    best, steps = tmp_path / "adapter", tmp_path / "checkpoints"
    assert choose("best", best, steps) == best
    assert choose("last", best, steps) == steps / "step-10"
    assert choose("step-9", best, steps) == steps / "step-9"
    with pytest.raises(ValueError, match="step-3.*there is best and step-9, step-10"):
        choose("step-3", best, steps)
    with pytest.raises(ValueError, match="is last.*no step"):
        choose("last", best, None)
    (best / "adapter_config.json").write_text("changed", encoding="utf-8")
    with pytest.raises(ValueError, match="adapter_config.json is not what was saved"):
        choose("best", best, steps)


def test_the_samples_are_a_table_that_markdown_cannot_break(tmp_path):
    base = replace(ROW, answer="A | B\n<b>", ended=False)
    write_report(tmp_path / "report", [base], [ROW])
    table = (tmp_path / "report" / "samples.md").read_text(encoding="utf-8")
    assert "| A \\| B &lt;b> … (0.60) | Can a landlord do that (0.60) |" in table
    samples = json.loads((tmp_path / "report" / "samples.json").read_text(encoding="utf-8"))
    assert samples[0]["tuned"] == ROW.answer
    assert "<b>" not in samples[0]["base"]


def test_the_chart_has_base_and_tuned_of_each_metric_and_the_trivial_answer():
    entries = comparison([ROW], [replace(ROW, loss=3.0)])
    assert {"metric": "loss", "model": "tuned", "value": 1.0} in entries
    models = [entry["model"] for entry in entries if entry["metric"] == "ROUGE-L"]
    assert models == ["base", "tuned", "first words"]
    assert "first words" not in [e["model"] for e in entries if e["metric"] == "loss"]


def test_the_chart_has_the_loss_of_each_source_where_there_are_several():
    rows = [ROW, replace(ROW, source="food", loss=3.0)]
    entries = comparison(rows, rows)
    assert {"metric": "loss, food", "model": "tuned", "value": 1.0} in entries
    assert {"metric": "loss, law", "model": "base", "value": 2.0} in entries


def _evaluate(monkeypatch, *arguments: str) -> None:
    command = ["evaluate", "models/base", "data/prepared/test", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    main()


BASELINE = ("--metrics", "metrics/baseline.json", "--predictions", "data/baseline.jsonl")
TUNED = (
    *("--adapter", "models/adapter", "--checkpoints", "models/checkpoints"),
    *("--baseline", "data/baseline.jsonl", "--predictions", "data/tuned.jsonl"),
    *("--metrics", "metrics/tuned.json", "--report", "reports/evaluate"),
)


@pytest.fixture
def adapter(workspace) -> Path:
    """models/adapter with random weights; models/checkpoints/step-4 with an untrained one."""
    params = load()
    for folder, seed in (("models/checkpoints/step-4", None), ("models/adapter", 1)):
        model = load_base(Path("models/base"), params.quantization, params.compute)
        model = add_lora(model, params.lora, params.seed)
        if seed:
            torch.manual_seed(seed)
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(f"{folder}.partial")
        seal(Path(f"{folder}.partial"), Path(folder))
    return workspace


def test_the_stage_scores_base_and_tuned_and_gives_the_same_bytes_again(adapter, monkeypatch):
    _evaluate(monkeypatch, *BASELINE)
    _evaluate(monkeypatch, *TUNED)
    base, tuned = (
        json.loads(Path(f"metrics/{m}.json").read_text(encoding="utf-8"))
        for m in ("baseline", "tuned")
    )
    assert base["rows"] == tuned["rows"] == 8
    assert set(base["trivial"]) == {"rouge1", "rougeL"}
    assert tuned["diff"]["loss"] == pytest.approx(tuned["loss"] - base["loss"], abs=2e-4)
    assert tuned["diff"]["loss_low"] < tuned["diff"]["loss"] < tuned["diff"]["loss_high"]
    written = {path: path.read_bytes() for path in Path("reports").rglob("*.*")}
    written |= {path: path.read_bytes() for path in Path("metrics").iterdir()}
    assert len(written) == 5
    _evaluate(monkeypatch, *BASELINE)
    _evaluate(monkeypatch, *TUNED)
    assert {path: path.read_bytes() for path in written} == written


def test_an_untrained_checkpoint_scores_exactly_as_the_base(adapter, monkeypatch, write_params):
    write_params(adapter, evaluate__checkpoint="step-4")
    _evaluate(monkeypatch, *BASELINE)
    _evaluate(monkeypatch, *TUNED)
    assert Path("data/baseline.jsonl").read_text(encoding="utf-8") == Path(
        "data/tuned.jsonl"
    ).read_text(encoding="utf-8")
    assert set(
        json.loads(Path("metrics/tuned.json").read_text(encoding="utf-8"))["diff"].values()
    ) == {0.0}


def test_the_baseline_of_other_rows_fails_before_the_model_is_loaded(
    adapter, monkeypatch, write_params
):
    _evaluate(monkeypatch, *BASELINE)
    write_params(adapter, evaluate__max_rows=5)
    monkeypatch.setattr("stages.evaluate.__main__.load_base", None)
    with pytest.raises(ValueError, match="has 8 rows, of which 5 are among the 5 scored now"):
        _evaluate(monkeypatch, *TUNED)
    assert not Path("metrics/tuned.json").exists()
