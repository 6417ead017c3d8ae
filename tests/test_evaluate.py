"""Evaluation: what is scored, what is compared with what, and what is refused."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
from stages.evaluate.behaviour import describe
from stages.evaluate.checkpoint import choose
from stages.evaluate.forgotten import forgotten, read_passages
from stages.evaluate.losses import row_losses
from stages.evaluate.metrics import compare, confusion, merge, summarize
from stages.evaluate.predictions import Prediction, read_predictions, write_predictions
from stages.evaluate.questions import read_questions
from stages.evaluate.report import by_part, comparison, write_report

ROW = Prediction(
    id="00ff",
    source="law",
    question="My landlord kept the deposit of the flat",
    reference="Can a landlord keep it",
    answer="Can a landlord do that",
    loss=6.0,
    tokens=3,
    length=5,
    ended=True,
    scores={"rouge1": 0.6, "rougeL": 0.6},
    trivial={"rouge1": 0.2, "rougeL": 0.2},
)
DRAWS = {"samples": 50, "seed": 0}


def _many(row: Prediction = ROW, count: int = 12) -> list[Prediction]:
    """Rows that differ in their ids alone."""
    return [replace(row, id=str(at)) for at in range(count)]


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
@pytest.mark.parametrize("shared", [0, 2, 3, 4])
def test_reading_a_question_once_gives_its_loss_and_its_answer(
    model, tmp_path, batch_tokens, spans, shared
):
    """Also where questions begin alike, and where a supervised token is among what they share."""
    rows = [{**row, "spans": [*spans[:-1], len(row["input_ids"])]} for row in _rows(9)]
    for row in rows:
        row["input_ids"][:shared] = [5, 6, 7, 8][:shared]
    questions = read_questions(_split(tmp_path / "test", rows), None)
    settings = Evaluate("best", None, 5, batch_tokens, 10, ["loss"], "unused", [])
    found = score_and_answer(model, WORDS, questions, settings)
    losses = row_losses(model, [each.row for each in questions], 1000)
    assert [loss for loss, _ in found] == pytest.approx(losses, abs=1e-4)
    prompts = [each.prompt() for each in questions]
    answers = answer_prompts(model, WORDS, prompts, max_new_tokens=5, batch_tokens=1000)
    assert [answer for _, answer in found] == answers


def test_the_loss_weighs_tokens_and_the_other_scores_weigh_rows():
    long = replace(ROW, id="1", loss=10.0, tokens=7, ended=False, length=32)
    long = replace(long, scores={"rouge1": 0.2, "rougeL": 0.2})
    metrics = summarize([ROW, long], **DRAWS)
    assert metrics["loss"] == 1.6
    assert (metrics["rougeL"], metrics["stop_rate"], metrics["length"]) == (0.4, 0.5, 18.5)
    assert metrics["rows"] == metrics["groups"] == 2
    assert metrics["interval"]["loss"] == {"low": None, "high": None}
    assert "source" not in metrics and "label" not in metrics


@pytest.mark.parametrize("by", ["source", "label"])
def test_several_sources_or_labels_have_numbers_each_and_so_has_what_tuning_changed(by):
    base = _many(replace(ROW, **{by: "law"})) + _many(replace(ROW, **{by: "food"}))
    tuned = [replace(each, loss=3.0 if getattr(each, by) == "food" else 6.0) for each in base]
    found = merge(summarize(tuned, **DRAWS), compare(base, tuned, **DRAWS))[by]
    assert (found["food"]["loss"], found["law"]["loss"]) == (1.0, 2.0)
    assert found["food"]["rows"] == 12 and found["food"]["rougeL"] == 0.6
    assert found["food"]["diff"]["loss"] == found["food"]["diff"]["loss_high"] == -1.0
    assert found["law"]["diff"]["loss"] == 0.0


def test_pieces_of_one_document_are_one_group():
    pieces = [replace(each, document=str(at % 3)) for at, each in enumerate(_many())]
    assert summarize(pieces, **DRAWS)["groups"] == 3
    assert summarize(pieces, **DRAWS)["interval"]["loss"]["low"] is None
    grouped = [replace(each, group="one") for each in pieces]
    assert summarize(grouped, **DRAWS)["groups"] == 1


def test_the_trivial_answer_is_scored_beside_the_model_with_the_difference():
    assert summarize([ROW], **DRAWS)["trivial"] == {"rouge1": 0.2, "rougeL": 0.2}
    over = compare(_many(), _many(), **DRAWS)["over_trivial"]
    assert over["rougeL"] == over["rougeL_low"] == pytest.approx(0.4)


def test_texts_without_questions_have_a_perplexity_and_no_answers():
    text = replace(ROW, question="", reference="", answer="", scores={}, trivial={})
    found = summarize([text], **DRAWS)
    assert found["perplexity"] == round(math.exp(2), 4)
    assert not {"stop_rate", "trivial", "rougeL"} & found.keys()
    assert set(compare([text], [text], **DRAWS)["diff"]) == {"loss", "loss_low", "loss_high"}


def test_the_difference_is_tuned_minus_base():
    tuned = replace(ROW, loss=3.0, scores={"rouge1": 0.6, "rougeL": 0.8})
    found = compare(_many(), _many(tuned), **DRAWS)["diff"]
    assert found["loss"] == found["loss_low"] == found["loss_high"] == -1.0
    assert found["rougeL"] == pytest.approx(0.2)


def _labelled(pairs: list[tuple[str, str]]) -> list[Prediction]:
    majority = "yes"
    return [
        replace(
            ROW,
            id=str(at),
            reference=reference,
            answer=answer,
            scores={"accuracy": float(reference == answer)},
            trivial={"accuracy": float(reference == majority)},
        )
        for at, (reference, answer) in enumerate(pairs)
    ]


PAIRS = [("yes", "yes")] * 6 + [("yes", "no")] * 2 + [("no", "no")] * 3 + [("no", "perhaps")]


def test_labels_have_accuracy_macro_f1_and_a_table_of_confusions():
    metrics = summarize(_labelled(PAIRS), **DRAWS)
    assert metrics["accuracy"] == 0.75
    # yes: 6 hits, 6 answered, 8 due; no: 3 hits, 5 answered, 4 due.
    assert metrics["macro_f1"] == pytest.approx((12 / 14 + 6 / 9) / 2, abs=1e-4)
    assert metrics["trivial"]["accuracy"] == pytest.approx(8 / 12, abs=1e-4)
    # Only yes is answered: F1 2 x 8 / (12 + 8) and 0.
    assert metrics["trivial"]["macro_f1"] == pytest.approx(0.4, abs=1e-4)
    assert confusion(_labelled(PAIRS)) == [
        {"reference": "no", "answer": "no", "rows": 3},
        {"reference": "no", "answer": "other", "rows": 1},
        {"reference": "yes", "answer": "no", "rows": 2},
        {"reference": "yes", "answer": "yes", "rows": 6},
    ]


def test_an_answer_that_is_no_label_is_told_from_a_label_named_other():
    found = confusion(_labelled([("other", "other"), ("other", "perhaps")]))
    assert [each["answer"] for each in found] == ["(other)", "other"]


def test_macro_f1_has_a_paired_interval():
    wrong = _labelled([(reference, "no") for reference, _ in PAIRS])
    diff = compare(wrong, _labelled(PAIRS), **DRAWS)["diff"]
    assert diff["macro_f1_low"] < diff["macro_f1"] < diff["macro_f1_high"]


def test_how_answers_are_written_is_described():
    asked = [
        replace(ROW, question="a b c d e", reference="a b c", answer="x a b c", ended=True),
        replace(ROW, question="q", reference="r s t", answer="", ended=False),
        replace(ROW, question="q", reference="r", answer="u v w x u v w x", ended=True),
    ]
    found = describe(asked)
    assert found["stop_rate"] == pytest.approx(2 / 3)
    assert found["empty"] == pytest.approx(1 / 3)
    # 4-grams of the last: uvwx vwxu wxuv xuvw uvwx, one of five said before.
    assert found["repeated"] == pytest.approx((1 / 5) / 3)
    assert found["copied"] == pytest.approx((3 / 4) / 3)
    assert found["reference_copied"] == pytest.approx(1 / 3)
    assert found["length_ratio"] == pytest.approx(12 / 7)


def test_what_was_forgotten_is_measured_by_passages_and_tokens(tmp_path):
    class Letters:
        def __call__(self, text):
            return SimpleNamespace(input_ids=[1, *(ord(letter) for letter in text)])

    path = tmp_path / "text.txt"
    path.write_text(
        "\n\n".join("ab" * (at + 1) for at in range(9)) + "\n\n" + "z" * 999, encoding="utf-8"
    )
    passages = read_passages(path, Letters())
    assert [len(row.input_ids) for row in passages][-2:] == [19, 256]
    assert [len(row.supervised()) for row in passages][:2] == [2, 4]
    base = [2.0 * len(row.supervised()) for row in passages]
    found = forgotten(passages, base, [1.5 * each for each in base], **DRAWS)
    assert (found["base"], found["tuned"], found["loss"]) == (2.0, 3.0, 1.0)
    assert (found["low"], found["high"]) == (1.0, 1.0)
    assert (found["passages"], found["tokens"]) == (10, 90 + 255)
    path.write_text("\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="evaluate.general_text: .* no passage"):
        read_passages(path, Letters())


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


def _scores(base: list[Prediction], tuned: list[Prediction]) -> dict[str, dict]:
    return {"base": summarize(base, **DRAWS), "tuned": summarize(tuned, **DRAWS)}


def _report(folder: Path, base: list[Prediction], tuned: list[Prediction]) -> None:
    write_report(folder, base, tuned, _scores(base, tuned), **DRAWS)


def test_the_samples_are_a_table_that_markdown_cannot_break(tmp_path):
    base = replace(ROW, answer="A | B\n<b>", ended=False)
    _report(tmp_path / "report", [base], [ROW])
    table = (tmp_path / "report" / "samples.md").read_text(encoding="utf-8")
    assert "| A \\| B &lt;b> … (0.60) | Can a landlord do that (0.60) |" in table
    samples = json.loads((tmp_path / "report" / "samples.json").read_text(encoding="utf-8"))
    assert samples[0]["tuned"] == ROW.answer
    assert "<b>" not in samples[0]["base"]


def test_the_chart_has_base_and_tuned_of_each_metric_and_the_trivial_answer():
    entries = comparison(_scores([ROW], [replace(ROW, loss=3.0)]))
    assert {"metric": "loss", "model": "tuned", "value": 1.0} in entries
    models = [entry["model"] for entry in entries if entry["metric"] == "ROUGE-L"]
    assert models == ["base", "tuned", "trivial answer"]
    assert "trivial answer" not in [e["model"] for e in entries if e["metric"] == "loss"]


def test_the_chart_of_parts_has_a_difference_with_bounds_for_each_source():
    base = [*_many(), *_many(replace(ROW, source="food"))]
    tuned = [replace(each, loss=3.0) if each.source == "food" else each for each in base]
    entries = by_part(base, tuned, **DRAWS)
    food = {"by": "source", "part": "food", "rows": 12, "metric": "loss"}
    assert {**food, "difference": -1.0, "low": -1.0, "high": -1.0} in entries
    assert {entry["metric"] for entry in entries} == {"loss", "ROUGE-L"}
    assert by_part(_many(), _many(), **DRAWS) == []


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
    names = {"rouge1", "rougeL", "chrf", "token_f1", "exact_match"}
    assert set(base["trivial"]) == names
    assert set(tuned["over_trivial"]) > names and "forgotten" not in base
    assert tuned["forgotten"]["low"] < tuned["forgotten"]["loss"] < tuned["forgotten"]["high"]
    assert tuned["diff"]["loss"] == pytest.approx(tuned["loss"] - base["loss"], abs=2e-4)
    assert tuned["diff"]["loss_low"] < tuned["diff"]["loss"] < tuned["diff"]["loss_high"]
    written = {path: path.read_bytes() for path in Path("reports").rglob("*.*")}
    written |= {path: path.read_bytes() for path in Path("metrics").iterdir()}
    assert len(written) == 7
    _evaluate(monkeypatch, *BASELINE)
    _evaluate(monkeypatch, *TUNED)
    assert {path: path.read_bytes() for path in written} == written


@pytest.mark.parametrize(("most", "told"), [(1, True), (64, False)])
def test_references_that_no_answer_can_equal_are_told(
    workspace, monkeypatch, write_params, caplog, most, told
):
    write_params(workspace, evaluate__max_new_tokens=most)
    _evaluate(monkeypatch, *BASELINE)
    assert ("8 of 8 reference answers have more tokens than" in caplog.text) == told


def test_an_untrained_checkpoint_scores_exactly_as_the_base(adapter, monkeypatch, write_params):
    write_params(adapter, evaluate__checkpoint="step-4")
    _evaluate(monkeypatch, *BASELINE)
    _evaluate(monkeypatch, *TUNED)
    assert Path("data/baseline.jsonl").read_text(encoding="utf-8") == Path(
        "data/tuned.jsonl"
    ).read_text(encoding="utf-8")
    metrics = json.loads(Path("metrics/tuned.json").read_text(encoding="utf-8"))
    assert set(metrics["diff"].values()) == {0.0}
    assert metrics["forgotten"]["loss"] == metrics["forgotten"]["high"] == 0.0


def test_the_baseline_of_other_rows_fails_before_the_model_is_loaded(
    adapter, monkeypatch, write_params
):
    _evaluate(monkeypatch, *BASELINE)
    write_params(adapter, evaluate__max_rows=5)
    monkeypatch.setattr("stages.evaluate.__main__.load_base", None)
    with pytest.raises(ValueError, match="has 8 rows, of which 5 are among the 5 scored now"):
        _evaluate(monkeypatch, *TUNED)
    assert not Path("metrics/tuned.json").exists()
