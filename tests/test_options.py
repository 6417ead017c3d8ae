"""Every option of training does what its name says, and what it does not touch stays the same."""

import inspect
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from finetune.params import NO_WARMUP, Model, load
from finetune.text.tokens import TokenRows, TokenWriter
from stages.fetch.model import write_base
from stages.train.adapter import WEIGHTS
from stages.train.verify import reload_loss
from tests import sessions
from tests.conftest import question

pytestmark = pytest.mark.slow
EACH_STEP = {"train__logging_steps": 1, "train__optim": "adamw_torch"}


@pytest.fixture
def run(tmp_path, furnish):
    """A function that trains with some keys changed and returns what was logged."""

    def train(name: str, **changes: object) -> list[dict[str, float]]:
        folder = tmp_path / name
        if not (folder / "params.yaml").exists():
            furnish(folder, **EACH_STEP, **changes)
        code, log = sessions.train(folder)
        assert code == 0, log
        return sessions.read_history(folder)

    return train


def rates(history: list[dict[str, float]]) -> list[float]:
    return [entry["learning_rate"] for entry in history if "learning_rate" in entry]


def losses(history: list[dict[str, float]]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def test_a_schedule_takes_its_options(run):
    schedule = {"train__lr_scheduler_type": "cosine_with_min_lr"}
    high = run("high", **schedule, train__lr_scheduler_kwargs={"min_lr_rate": 0.5})
    assert rates(high)[-1] > 0.005
    flat = {"num_decay_steps": 2, "min_lr_ratio": 0.1}
    stable = run(
        "stable",
        train__lr_scheduler_type="warmup_stable_decay",
        train__lr_scheduler_kwargs=flat,
    )
    assert rates(stable)[2:6] == [0.01] * 4 and rates(stable)[-1] < 0.01


def test_a_share_of_warm_up_is_that_many_steps(run):
    number, share = run("number"), run("share", train__warmup_steps=0, train__warmup_ratio=0.25)
    assert losses(share) == losses(number) and rates(share) == rates(number)


@pytest.mark.parametrize(
    "changes", [{"adam_beta1": 0.5}, {"adam_beta2": 0.9}, {"adam_epsilon": 0.1}], ids=str
)
def test_the_optimizer_takes_its_options(run, changes):
    plain, other = run("plain"), run("other", **{f"train__{k}": v for k, v in changes.items()})
    assert losses(other)[0] == losses(plain)[0]
    assert losses(other)[3:] != losses(plain)[3:]


def write_sources(folder: Path, tokenizer, asked: str) -> None:
    """Two sources, the second of other answers; `asked` is the text of prompt.json."""
    for split, start in (("train", 0), ("validation", 40)):
        with TokenWriter(folder / split) as writer:
            for number in range(start, start + (40 if split == "train" else 10)):
                row, source = question(number), ("law", "food")[number % 2]
                answer = row["title"] if source == "law" else "yes"
                ids = [
                    tokenizer(text, add_special_tokens=False).input_ids
                    for text in ("<s>" + row["body"], answer + "</s>")
                ]
                spans = [len(ids[0]), len(ids[0]) + len(ids[1])]
                writer.write(f"{number:016x}", source, ids[0] + ids[1], spans)
    (folder / "train/prompt.json").write_text(asked, encoding="utf-8")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_of_each_source_is_logged_drawn_and_can_choose_the_best(
    tmp_path, furnish, tiny_base, processes
):
    from finetune.model.load import load_tokenizer

    best = {"train__metric_for_best_model": "eval_loss_food"}
    share = {"train__per_device_train_batch_size": 4 // processes}
    furnish(tmp_path, **EACH_STEP, **best, **share)
    asked = (tmp_path / "data/prepared/train/prompt.json").read_text(encoding="utf-8")
    (tmp_path / "data/prepared").unlink()
    write_sources(tmp_path / "data/prepared", load_tokenizer(tiny_base), asked)
    if processes == 1:
        assert sessions.train(tmp_path)[0] == 0
    else:
        both = sessions.start_two(tmp_path)
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
    history = [e for e in sessions.read_history(tmp_path) if "eval_loss" in e]
    rows = TokenRows(tmp_path / "data/prepared/validation")
    tokens = {source: 0 for source in rows.sources}
    for at in range(len(rows)):
        tokens[rows[at].source] += len(rows[at].supervised())
    for entry in history:
        total = sum(entry[f"eval_loss_{source}"] * count for source, count in tokens.items())
        assert total / sum(tokens.values()) == pytest.approx(entry["eval_loss"], rel=1e-6)
    metrics = json.loads((tmp_path / "metrics/train.json").read_text(encoding="utf-8"))
    lowest = min(history[1:], key=lambda entry: entry["eval_loss_food"])
    assert metrics["best_step"] == lowest["step"]
    assert metrics["eval_loss"] == pytest.approx(lowest["eval_loss"], abs=1e-4)
    tables = tmp_path / "reports/train/plots/metrics/eval"
    assert {path.name for path in tables.iterdir()} == {
        "loss.tsv",
        "loss_food.tsv",
        "loss_law.tsv",
    }


def test_a_metric_that_is_not_measured_is_refused(tmp_path, furnish):
    furnish(tmp_path, train__metric_for_best_model="eval_loss_food")
    code, log = sessions.train(tmp_path)
    assert code == 1 and "metric_for_best_model is eval_loss_food: here is eval_loss" in log


def test_padded_batches_train_as_flat_ones_do(tmp_path, run, furnish, tiny_weights):
    """A model whose attention cannot be flat: here for a dropout that drops nothing."""
    flat = run("flat")
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    config["attention_dropout"] = 1e-9
    (weights / "config.json").write_text(json.dumps(config), encoding="utf-8")
    folder = furnish(tmp_path / "padded", **EACH_STEP)
    (folder / "models/base").unlink()
    model = YAML(typ="safe").load(folder / "params.yaml")["model"] | {"folder": str(weights)}
    write_base(Model(**model), weights, folder / "models/base")
    padded = run("padded")
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert "padded batches with sdpa attention instead" in log
    assert losses(padded) == pytest.approx(losses(flat), rel=1e-3)


def test_in_bfloat16_the_adapter_is_trained_in_float32(run, tmp_path):
    half = {"device": "cpu", "dtype": "bfloat16", "num_threads": 1, "matmul": "bfloat16"}
    changes = {"train__learning_rate": 2e-5, "train__warmup_steps": 0, "train__max_steps": 4}
    run("half", compute=half, **changes)
    weights = load_file(tmp_path / "half/models/adapter" / WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    for name, tensor in weights.items():
        # In bfloat16 an A of 0.1 could not take up a step of 2e-5.
        rounded = (tensor.bfloat16().float() == tensor).float().mean()
        assert rounded < 0.1, name
    steps = [t.abs().max().item() for n, t in weights.items() if "lora_B" in n]
    assert all(0 < step <= 2e-5 * 4 * 1.01 for step in steps)
    assert math.isfinite(sum(steps))


LORA = {
    "an expression": {"target_modules": r".*layers\.0\..*(q|v)_proj"},
    "without some": {"exclude_modules": ["down_proj"]},
    "without an expression": {"exclude_modules": r".*layers\.1\..*"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "DoRA": {"use_dora": True},
    "DoRA on 4 bits": {"use_dora": True, "dequantize": False},
}


@pytest.mark.parametrize("changes", LORA.values(), ids=LORA.keys())
def test_an_adapter_of_another_kind_is_trained_and_loads_again_as_trained(
    run, tmp_path, monkeypatch, changes
):
    four_bit = changes.get("dequantize", True)
    keys = {f"lora__{k}": v for k, v in changes.items() if k != "dequantize"}
    history = run("kind", **keys, quantization__dequantize=four_bit, train__max_steps=4)
    monkeypatch.chdir(tmp_path / "kind")
    names = set(load_file(Path("models/adapter") / WEIGHTS))
    if "init_lora_weights" not in changes:
        assert len(names) != 2 * 7 * 2
    best = min((e for e in history if "eval_loss" in e), key=lambda e: e["eval_loss"])
    assert best["eval_loss"] < history[0]["eval_loss"]
    places = (Path("models/base"), Path("data/prepared"), Path("models/adapter"))
    found = reload_loss(load(), *places, best["eval_sample_tokens"])
    assert found == pytest.approx(best["eval_sample_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora__target_modules": "q_proj"}, r"write \[q_proj\], or an expression"),
        ({"lora__target_modules": "(q_proj"}, "no regular expression"),
        ({"lora__exclude_modules": "(q_proj"}, "no regular expression"),
        ({"lora__init_lora_weights": "pissa"}, "'default', 'gaussian' or 'orthogonal'"),
        ({"lora__init_lora_weights": "orthogonal", "lora__r": 3}, "needs an even one"),
        ({"train__warmup_ratio": 0.1}, "leave at least one at 0"),
        ({"train__lr_scheduler_type": "constant"},
         "is constant, which ignores train.warmup_steps 2: .* write constant_with_warmup"),
        ({"train__lr_scheduler_type": "reduce_lr_on_plateau", "train__warmup_steps": 0,
          "train__warmup_ratio": 0.1}, "ignores train.warmup_ratio 0.1: set that to 0$"),
        ({"train__resume_accept": ["max_steps"]}, "name it in train.resume_from"),
        ({"seed": 2**32}, "seed is 4294967296: input should be less than 4294967296"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_the_first_second(tmp_path, write_params, changes, message):
    write_params(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "params.yaml")


def test_the_schedules_without_warm_up_are_those_of_transformers():
    without = {
        each.value
        for each, make in TYPE_TO_SCHEDULER_FUNCTION.items()
        if "num_warmup_steps" not in inspect.signature(make).parameters
    }
    assert without == set(NO_WARMUP)
