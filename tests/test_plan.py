"""tools.plan: what is said of a run before it starts, and that the run would say the same."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from finetune.model import memory
from finetune.params import load
from stages.train.fast.fitting import plan_memory
from stages.train.settings import warmup_steps
from stages.train.steps import make_plan as make_run
from tests import hub_server
from tests.repository import ROOT
from tools.plan.access import check_access
from tools.plan.asked import Asked, find_params
from tools.plan.base import find_base
from tools.plan.data import Data, find_data
from tools.plan.devices import find_device
from tools.plan.disk import plan_disk
from tools.plan.findings import Rows
from tools.plan.idle import find_idle, why_no_float8
from tools.plan.memory import hold
from tools.plan.plan import make_plan
from tools.plan.schedule import check_schedule, make_schedule
from tools.plan.speed import Work, choose, estimate_duration, read_measurements
from tools.plan.text import WIDTH, as_text

LAW, FOOD = ROOT / "presets/law-mistral-7b.yaml", ROOT / "presets/food-mistral-24b.yaml"
COUNTED = Data("prepared", "counted", Rows(400, 60_000, 512, 6_000), Rows(40, 6_000, 300), 0.1)


@pytest.fixture(scope="module")
def law():
    return load(LAW)


@pytest.fixture(scope="module")
def default():
    return load(ROOT / "presets/law-sample.yaml")


@pytest.fixture(scope="module")
def mistral_7b(law):
    with find_base(law.model, ROOT).config_folder() as folder:
        return memory.skeleton(folder)


@pytest.fixture(scope="module")
def plans():
    """Of both Mistral presets, asking nobody."""
    device = find_device("24")
    asked = Asked(device=device, price=2.0, offline=True)
    more = replace(asked, rows=27_000, row_tokens=1024)
    return {"law": make_plan(LAW, asked, ROOT), "food": make_plan(FOOD, more, ROOT)}


def changed(params, **changes):
    """With `section__key` set to other values."""
    for key, value in changes.items():
        section, _, name = key.partition("__")
        inner = replace(getattr(params, section), **{name: value})
        params = replace(params, **{section: inner})
    return params


def keys_of(findings):
    return {each.key for each in findings}


def test_the_law_preset_is_warned_of_its_passes_and_its_learning_rate(plans):
    warned = {each.key: each.message for each in plans["law"].warnings}
    assert set(warned) == {"train.max_steps", "train.learning_rate"}
    assert "about 640 rows is seen about 875 times" in warned["train.max_steps"]
    assert "4 times below" in warned["train.learning_rate"]
    assert plans["law"].data.basis == "known" and "law-mistral-7b" in plans["law"].data.where


def test_the_food_preset_is_told_that_its_biases_train_nothing(plans):
    assert "lora.bias" in keys_of(plans["food"].idle)
    assert plans["food"].schedule.steps == 2 * 27_000 // 32 + 1
    assert not plans["food"].warnings


def test_rows_that_nobody_counted_are_not_guessed():
    plan = make_plan(FOOD, Asked(offline=True), ROOT)
    assert plan.data.basis == "unknown" and "dvc repro preprocess" in plan.data.where
    assert plan.schedule.steps is None and plan.hours is None
    if not torch.cuda.is_available():
        assert [each.fit is None for each in plan.held] == [True] * 2 + [False] * 4


def test_json_has_what_the_text_has(plans):
    found = json.loads(json.dumps(plans["law"].as_dict()))
    assert {"data", "schedule", "held", "duration", "disk", "access", "idle", "warnings"} <= set(
        found
    )
    assert found["held"][0]["total"] == plans["law"].held[0].total
    assert found["cost"] == pytest.approx(2 * found["hours"])
    assert found["schedule"]["epochs"] == 875


@pytest.mark.parametrize("name", ["law", "food"])
def test_the_text_fits_100_columns_and_says_by_which_measurement(plans, name):
    text = as_text(plans[name])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "NVIDIA H200 capped at 24 GB" in text and "at 2 an hour" in text
    assert "weights, frozen" in text and "peak, estimate" in text


@pytest.mark.parametrize("matmul", ["bfloat16", "float8"])
@pytest.mark.parametrize(
    ("gigabytes", "mode"), [(12, "auto"), (24, "auto"), (80, "auto"), (24, "fixed")]
)
def test_memory_is_what_the_run_itself_decides(
    law, mistral_7b, monkeypatch, gigabytes, matmul, mode
):
    params = changed(law, compute__matmul=matmul, train__memory=mode)
    device = replace(find_device(str(gigabytes)), capability=(9, 0))
    held = hold(mistral_7b, params, COUNTED, make_schedule(params, COUNTED, ROOT), device)
    monkeypatch.setattr(memory, "available_bytes", lambda _: held.available)
    monkeypatch.setattr(memory, "skeleton", lambda _: mistral_7b)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    run = SimpleNamespace(lengths=np.array([100, 512]), share=8, processes=1)
    decided = plan_memory(params, Path("base"), run, torch.device("cuda"))
    assert (held.fit, held.total) == (decided.fits[0], decided.estimated)
    assert held.dequantized == decided.quantization.dequantize
    assert (held.problem is None) == (held.total <= held.available)


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora__dropout": 0.1}, {"lora__use_dora": True}, {"train__compile": False}],
)
def test_products_in_float8_are_given_up_for_the_runs_own_reasons(
    law, mistral_7b, monkeypatch, changes
):
    from stages.train.fast import float8

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    params = changed(law, compute__matmul="float8", **changes)
    refused = float8.why_not(params, mistral_7b) is not None
    assert refused == (why_no_float8(params, mistral_7b) is not None)
    idle = find_idle(params, "cuda", make_schedule(params, COUNTED, ROOT), mistral_7b)
    assert refused == ("compute.matmul" in keys_of(idle))


def test_a_device_that_is_too_small_says_what_it_takes(mistral_7b, law):
    held = hold(mistral_7b, law, COUNTED, make_schedule(law, COUNTED, ROOT), find_device("4"))
    assert held.fit is None and "the smallest step needs" in held.problem


def test_a_device_that_is_none_is_answered_with_all_names():
    with pytest.raises(ValueError, match=r"--device is h100: .*, h100-80, h200-141"):
        find_device("h100")
    assert find_device("RTX-4090-24").memory == find_device("24").memory == 24_000_000_000


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train__max_steps": 2000}, "train.max_steps"),
        ({"train__eval_steps": 50}, "train.eval_steps"),
        ({"train__eval_steps": 1}, "train.eval_steps"),
        ({"train__logging_steps": 50}, "train.logging_steps"),
        ({"train__save_steps": 100}, "train.save_steps"),
        ({"train__warmup_steps": 40}, "train.warmup_steps"),
        ({"train__warmup_steps": 0, "train__warmup_ratio": 0.6}, "train.warmup_ratio"),
        ({"train__learning_rate": 1e-5}, "train.learning_rate"),
        ({"train__learning_rate": 0.1}, "train.learning_rate"),
        ({"train__early_stopping_patience": 5}, "train.early_stopping_patience"),
        ({"train__metric_for_best_model": "eval_loss_tax"}, "train.metric_for_best_model"),
        ({"evaluate__checkpoint": "step-30"}, "evaluate.checkpoint"),
    ],
)
def test_what_is_odd_about_a_run_is_warned_of(default, changes, key):
    calm = check_schedule(default, COUNTED, make_schedule(default, COUNTED, ROOT))
    assert not calm
    params = changed(default, **changes)
    found = check_schedule(params, COUNTED, make_schedule(params, COUNTED, ROOT))
    assert keys_of(found) == {key}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train__optim": "paged_adamw_32bit"}, "train.optim"),
        ({"train__optim": "sgd", "train__adam_beta2": 0.95}, "train.adam_beta2"),
        ({"train__memory": "auto"}, "train.memory"),
        ({"compute__matmul": "float8"}, "compute.matmul"),
        ({"lora__bias": "all"}, "lora.bias"),
        ({"lora__bias": "lora_only"}, "lora.bias"),
        ({"lora__exclude_modules": ["lm_head"]}, "lora.exclude_modules"),
        (
            {"lora__target_modules": ["q_proj", "v_proj"], "lora__exclude_modules": ["v_proj"]},
            "lora.target_modules",
        ),
        ({"lora__use_rslora": True, "lora__r": 1}, "lora.use_rslora"),
        ({"preprocess__max_uses": 3}, "preprocess.max_uses"),
        ({"preprocess__phones": "keep"}, "preprocess.phone_regions"),
        ({"preprocess__mixture_repeat": True}, "preprocess.mixture_repeat"),
        (
            {"prompt__template": "plain", "prompt__template_kwargs": {"a": 1}},
            "prompt.template_kwargs",
        ),
        ({"quantization__storage": "float32"}, "quantization.storage"),
        ({"launch__config": "presets/launch/ddp.yaml"}, "launch.config"),
        ({"model__source": "folder"}, "model.sha256"),
    ],
)
def test_an_option_that_does_nothing_is_named(default, mistral_7b, changes, key):
    def idle(params):
        schedule = make_schedule(params, COUNTED, ROOT)
        return keys_of(find_idle(params, "cpu", schedule, mistral_7b))

    assert idle(default) == {"train.optim"}  # paged, on a CPU
    assert key in idle(changed(default, **changes))


def test_steps_and_warmup_are_those_of_the_run(default):
    class Prepared:
        lengths = supervised = np.full(400, 150)

        def __len__(self):
            return 400

    params = changed(
        default,
        train__max_steps=None,
        train__num_train_epochs=1.5,
        train__warmup_steps=0,
        train__warmup_ratio=0.1,
    )
    plan, run = make_schedule(params, COUNTED, ROOT), make_run(params, Prepared(), 1)
    assert (plan.steps, plan.epochs) == (run.steps, run.epochs(run.steps))
    assert plan.warmup_steps == warmup_steps(params, run)


def test_processes_and_shards_are_read_from_the_launch(default):
    command = "accelerate launch --config_file presets/launch/fsdp.yaml"
    several = changed(default, launch__command=command, launch__config="presets/launch/fsdp.yaml")
    plan = make_schedule(several, COUNTED, ROOT)
    assert (plan.processes, plan.sharded, plan.examples) == (2, True, 8)
    torchrun = "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint first:29500"
    assert make_schedule(changed(several, launch__command=torchrun), COUNTED, ROOT).processes == 16


@pytest.fixture
def made(tmp_path, default):
    """A folder whose dvc.lock says that metrics/data.json was made from params.yaml."""
    values = YAML(typ="safe").load(ROOT / "presets/law-sample.yaml")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "metrics").mkdir()
    counts = {"rows": 400, "tokens": 60_000, "max": 300, "supervised": 6_000}
    text = json.dumps({"train": counts, "validation": counts | {"rows": 40, "tokens": 6_000}})
    (tmp_path / "metrics/data.json").write_text(text, encoding="utf-8")
    names = ("data", "documents", "mixture", "preprocess", "prompt")
    size = (ROOT / "data/sample/law.jsonl").stat().st_size
    stages = {
        "fetch_model": {"params": {"params.yaml": {"model": values["model"]}}},
        "fetch@law": {"deps": [{"path": "data/sample/law.jsonl", "size": size}]},
        "preprocess": {
            "params": {"params.yaml": {name: values[name] for name in names}},
            "outs": [{"path": "metrics/data.json", "md5": hashlib.md5(text.encode()).hexdigest()}],
        },
    }
    YAML().dump({"schema": "2.0", "stages": stages}, tmp_path / "dvc.lock")
    return tmp_path, values


def test_prepared_data_of_these_params_is_taken_as_it_was_counted(made, default):
    root, values = made
    found = find_data(default, values, root)
    assert found.basis == "prepared" and found.train == Rows(400, 60_000, 300, 6_000)
    assert found.supervised_share == 0.1


def test_prepared_data_of_other_params_is_not_used_and_that_is_said(made, default):
    root, values = made
    values["preprocess"]["max_length"] = 200
    found = find_data(changed(default, preprocess__max_length=200), values, root)
    assert found.basis == "estimate" and "of other params (preprocess.max_length)" in found.where
    assert found.train.longest == 200
    assert found.train.rows == pytest.approx(397, abs=2)  # of 544, less 27 % held out


def test_data_that_changed_since_is_counted_anew(made, default):
    root, values = made
    (root / "metrics/data.json").write_text("{}", encoding="utf-8")
    assert find_data(default, values, root).basis == "estimate"


def test_the_files_estimate_is_near_what_preprocess_counts(default, tmp_path):
    counted = {"rows": 400, "tokens": 67_281}  # by preprocess, of presets/law-sample.yaml
    (tmp_path / "data").symlink_to(ROOT / "data")
    found = find_data(default, {}, tmp_path)
    assert found.basis == "estimate" and "4 characters a token" in found.where
    assert found.train.rows == pytest.approx(counted["rows"], rel=0.05)
    assert found.train.tokens == pytest.approx(counted["tokens"], rel=0.2)


def test_rows_longer_than_any_can_be_are_refused(law):
    with pytest.raises(ValueError, match="--row-tokens is 513, above preprocess.max_length 512"):
        find_data(law, {}, ROOT, given=(10, 513))


def test_pages_are_not_estimated():
    path = ROOT / "presets/food-sample.yaml"
    found = find_data(load(path), YAML(typ="safe").load(path), ROOT)
    assert found.basis == "unknown" and "recipes is of web pages" in found.where


def test_every_transcribed_speed_is_in_its_section_of_the_results():
    page = (ROOT / "bench/RESULTS.md").read_text(encoding="utf-8")
    lines = (ROOT / "tools/plan/measured.jsonl").read_text(encoding="utf-8").splitlines()
    for entry in map(json.loads, lines):
        section = page.split(f"## {entry['section']}\n")[1].split("\n## ")[0]
        assert f"{entry['tokens_per_s']:,}" in section


WORK = Work(6_979_321_856, 131_072_000, 0.05, 2_000, True, False, True, False)


def test_the_measurement_most_like_the_run_is_taken_and_another_device_is_not_scaled_to():
    found = read_measurements(ROOT)
    assert choose(found, WORK, "H200", None).tokens_per_s == 17_191
    assert choose(found, replace(WORK, float8=True), "H100", None).tokens_per_s == 19_287
    small = replace(WORK, recomputed=True, dequantized=False)
    assert choose(found, small, None, 12e9).cap_gb == 12
    assert choose(found, WORK, "RTX 4090", None) is None
    assert choose(found, WORK, "H20", None) is None
    assert choose(found, replace(WORK, layer_weights=10**8), "H200", None) is None


def test_another_shape_is_scaled_by_its_operations_and_called_an_estimate(law):
    work = replace(WORK, layer_weights=2 * WORK.layer_weights, head_weights=2 * WORK.head_weights)
    one = choose(read_measurements(ROOT), WORK, "H200", None)
    schedule = make_schedule(law, COUNTED, ROOT)
    same, twice = (estimate_duration(one, each, COUNTED, schedule) for each in (WORK, work))
    assert not same.scaled and "scaled by 0.5" in twice.scaled[0]
    assert twice.train_s == pytest.approx(2 * same.train_s)
    assert same.train_s == pytest.approx(70_000 * 8 * 150 / 17_191, rel=1e-3)
    assert 0 < same.evaluation_s < same.train_s


def test_disk_counts_checkpoints_twice_and_says_where_room_is_missing(law):
    options = {"weights": 7 * 10**9, "state_bytes": 8, "here": None}
    found = plan_disk(law, COUNTED, ROOT, trained=42_000_000, **options)
    sizes = {item.name: item.size for item in found.items}
    assert sizes["base weights"] == 14 * 10**9
    assert sizes["models/resume"] == sizes["models/checkpoints"] == 4 * 12 * 42_000_000
    assert found.free["repository"] > 0
    huge = plan_disk(law, COUNTED, ROOT, trained=10**15, **options)
    assert "free, the run needs" in huge.short


def test_a_hub_that_is_not_asked_is_no_error_and_no_token_is_shown(law, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_a_secret")
    found = check_access(law, None, offline=True)
    assert [each.state for each in found] == ["unknown", "unknown"]
    assert "https://huggingface.co/mistralai/" in found[0].message
    assert "HF_TOKEN is set" in found[0].message and "hf_a_secret" not in str(found)


def test_gated_repositories_are_told_from_open_ones():
    code = (
        "import json; from dataclasses import replace; from finetune.params import load; "
        "from tools.plan.access import check_access; import sys; "
        "params = load('presets/law-mistral-7b.yaml'); "
        "model = replace(params.model, revision=sys.argv[1]); "
        "hub = {'law': replace(params.data.hub['law'], revision=sys.argv[2])}; "
        "data = replace(params.data, hub=hub); "
        "found = check_access(replace(params, model=model, data=data), None); "
        "print(json.dumps([[each.state, each.message] for each in found]))"
    )
    with hub_server.serve() as hub:
        name = "mistralai/Mistral-7B-Instruct-v0.2"
        commits = [
            hub.commit("models", name, {"config.json": b"{}"}),
            hub.commit("datasets", "jonathanli/law-stack-exchange", {"a.jsonl": b"{}"}),
        ]
        hub.repositories["models", name].gated = True
        where = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        where.pop("HF_TOKEN", None)
        states = {}
        for token in ("", hub.token):
            done = subprocess.run(
                [sys.executable, "-c", code, *commits],
                env=where | ({"HF_TOKEN": token} if token else {}),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                check=True,
            )
            assert hub.token not in done.stdout
            states[bool(token)] = json.loads(done.stdout)
    assert [state for state, _ in states[False]] == ["refused", "open"]
    assert f"accept its terms at https://huggingface.co/{name}" in states[False][0][1]
    assert [state for state, _ in states[True]] == ["granted", "open"]


def _run(*words):
    command = [sys.executable, "-m", "tools.plan", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def test_a_mistake_in_params_is_exit_code_1_and_one_line_a_mistake(tmp_path, write_params):
    write_params(tmp_path, train__max_stepps=3)
    done = _run(str(tmp_path / "params.yaml"))
    assert done.returncode == 1 and "did you mean max_steps?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_preset_is_found_by_its_name_and_a_wrong_name_lists_them():
    assert find_params("food-sample", ROOT) == ROOT / "presets/food-sample.yaml"
    with pytest.raises(ValueError, match="presets are food-mistral-24b, food-sample, law-"):
        find_params("law", ROOT)


def test_target_modules_that_match_nothing_are_an_error(workspace, write_params):
    write_params(workspace, lora__target_modules=["c_attn"])
    with pytest.raises(ValueError, match="lora.target_modules has c_attn, which the model lacks"):
        make_plan(Path("params.yaml"), Asked(offline=True), Path())


def test_a_base_of_unknown_shape_leaves_the_rest_of_the_plan(workspace, write_params):
    model = YAML(typ="safe").load(workspace / "params.yaml")["model"]
    write_params(workspace, model=model | {"source": "hub", "revision": "0" * 40})
    plan = make_plan(Path("params.yaml"), Asked(offline=True), Path())
    assert not plan.held and plan.schedule.steps == 8
    text = as_text(plan)
    assert "dvc repro fetch_model" in text and "unknown, because the model's shape is" in text


def test_a_run_on_the_cpu_is_planned_from_the_folder_of_its_base(workspace):
    plan = make_plan(Path("params.yaml"), Asked(offline=True), Path())
    assert plan.device == "cpu" and plan.base == "models/base" and plan.held[0].total > 0
    assert plan.duration is None and "nothing like it was measured on a CPU" in plan.no_duration
    assert max(map(len, as_text(plan).splitlines())) <= WIDTH


@pytest.mark.parametrize(("path", "shape"), [(LAW, "7b"), (FOOD, "24b")])
def test_shapes_that_are_known_are_those_that_were_measured(path, shape):
    from bench.shapes import SHAPES

    found, measured = find_base(load(path).model, ROOT, ask=False).config, SHAPES[shape].to_dict()
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads")
    assert all(found[name] == measured[name] for name in (*sizes, "num_attention_heads"))


def test_a_run_that_was_made_is_the_measurement_of_the_next(workspace, write_params):
    values = YAML(typ="safe").load(workspace / "params.yaml")
    stages = {
        "fetch_model": ["model"],
        "preprocess": ["data", "preprocess"],
        "train": ["train", "compute", "quantization"],
    }
    locked = {
        stage: {"params": {"params.yaml": {name: values[name] for name in names}}}
        for stage, names in stages.items()
    }
    YAML().dump({"schema": "2.0", "stages": locked}, workspace / "dvc.lock")
    run = {"fingerprint": "f", "global_step": 8, "tokens": 8_000, "supervised_tokens": 800}
    cost = {"fingerprint": "f", "tokens_per_s": 500, "processes": 1, "peak_memory_gb": 1.5}
    cost |= {"duration_s": 40.0, "warmup_s": 2.0, "hardware": "a CPU, 2 threads"}
    (workspace / "metrics").mkdir()
    for name, content in (("train", run), ("cost", cost)):
        text = json.dumps(content)
        (workspace / f"metrics/{name}.json").write_text(text, encoding="utf-8")
    plan = make_plan(Path("params.yaml"), Asked(rows=100, row_tokens=50, offline=True), Path())
    assert plan.duration.tokens_per_s == pytest.approx(500, rel=0.05)
    assert plan.duration.train_s == pytest.approx(8 * 16 * 50 / 500, rel=0.05)
    assert plan.done == cost and "this very run took 40 s" in as_text(plan)
    write_params(workspace, train__learning_rate=0.02)
    again = make_plan(Path("params.yaml"), Asked(rows=100, row_tokens=50, offline=True), Path())
    assert again.done is None and again.duration.measurement.source == "metrics/cost.json"
    (workspace / "metrics/train.json").write_text('{"fingerprint": "other"}', encoding="utf-8")
    assert make_plan(Path("params.yaml"), Asked(offline=True), Path()).duration is None
