"""The train stage: repeatable, resumable at any moment, and honest about what it saved."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.checkpoints import seal
from finetune.model.load import add_lora, load_base
from finetune.params import load
from finetune.text.tokens import TokenRows
from stages.train.adapter import WEIGHTS, check_trained, read_weights, write_adapter
from stages.train.checks import check, start_reports
from stages.train.evaluation import evaluation_batches, measure
from stages.train.settings import training_arguments
from stages.train.steps import Steps, make_plan
from tests import sessions
from tests.conftest import ROOT
from tools.curves import TOLERANCE, read_curve

pytestmark = pytest.mark.slow

DROPOUT = {"lora__dropout": 0.1}
EXACT = {"train__optim": "adamw_torch", "train__warmup_steps": 1}
KILLS = {
    "in a step": "SIGKILL token_nll 14",
    "in the middle of a checkpoint": "SIGKILL write_adapter 2",
    "before the sums are written": "SIGKILL write_json 2",
    "in the last checkpoint": "SIGKILL write_adapter 4",
}
SIGNALS = {
    "in a step": ("SIGTERM token_nll 14", 143),
    "before training": ("SIGTERM collate_flat 1", 143),
    "in an evaluation": ("SIGTERM collate_flat 3", 143),
    "in the last evaluation": ("SIGTERM collate_flat 9", 143),
    "by Ctrl-C": ("SIGINT token_nll 20", 130),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, furnish) -> Path:
    """A folder in which the stage ran to its end, with dropout."""
    folder = furnish(tmp_path_factory.mktemp("finished"), **DROPOUT)
    code, log = sessions.train(folder)
    assert code == 0, log
    return folder


@pytest.fixture
def interrupted(tmp_path, furnish) -> Path:
    """A folder in which the stage was told to stop in step 5, with dropout."""
    code, log = sessions.train(furnish(tmp_path, **DROPOUT), at="SIGTERM token_nll 14")
    assert code == 143, log
    return tmp_path


def _assert_same_outs(folder: Path, finished: Path) -> None:
    found, expected = sessions.read_outs(folder), sessions.read_outs(finished)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def _metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics/train.json").read_text(encoding="utf-8"))


def test_training_lowers_the_loss_and_counts_what_it_did(finished):
    metrics = _metrics(finished)
    assert metrics["eval_loss"] < metrics["eval_loss_first"] - 0.1
    assert metrics["global_step"] == 8 and metrics["examples"] == 128 and metrics["epochs"] == 3.2
    assert 0 < metrics["supervised_tokens"] < metrics["tokens"]
    config = json.loads(
        (finished / "models/adapter/adapter_config.json").read_text(encoding="utf-8")
    )
    assert config["target_modules"] == sorted(config["target_modules"])


def test_every_checkpoint_can_be_resumed_and_evaluated(finished):
    steps = sorted(path.name for path in (finished / "models/checkpoints").glob("step-*"))
    assert steps == ["step-6", "step-8"]
    named = json.loads((finished / "models/checkpoints/best.json").read_text(encoding="utf-8"))
    assert named == {"best": _metrics(finished)["best_step"], "last": 8}
    best = finished / f"models/checkpoints/step-{named['best']}" / WEIGHTS
    assert best.read_bytes() == (finished / "models/adapter" / WEIGHTS).read_bytes()


def test_outs_hold_no_path_host_or_time(finished):
    outs = sessions.read_outs(finished)
    assert not [name for name in outs if "training_args" in name]
    weights = load(finished / "params.yaml").model.folder
    for name, content in outs.items():
        if name != "models/adapter/settings.json":  # the user's own folder, of params.yaml
            assert weights.encode() not in content, name
        for word in (str(finished), "runtime", "per_second", "timestamp"):
            assert word.encode() not in content, name


def test_curves_are_at_true_steps(finished):
    tables = finished / "reports/train/plots/metrics"
    assert sorted(str(path.relative_to(tables)) for path in tables.rglob("*.tsv")) == [
        "eval/loss.tsv",
        "train/grad_norm.tsv",
        "train/learning_rate.tsv",
        "train/loss.tsv",
    ]
    steps = {
        name: [
            line.split("\t")[0]
            for line in (tables / name).read_text(encoding="utf-8").splitlines()[1:]
        ]
        for name in ("eval/loss.tsv", "train/loss.tsv")
    }
    assert steps == {"eval/loss.tsv": ["0", "2", "4", "6", "8"], "train/loss.tsv": ["3", "6"]}


def test_cost_names_the_run_that_it_belongs_to(finished):
    cost = json.loads((finished / "metrics/cost.json").read_text(encoding="utf-8"))
    assert (finished / "models/resume" / cost["fingerprint"]).is_dir()
    assert cost["tokens_per_s"] > 0 and cost["peak_memory_gb"] > 0 and cost["sessions"] == 1


def test_the_same_run_gives_the_same_bytes(tmp_path, furnish, finished):
    assert sessions.train(furnish(tmp_path, **DROPOUT))[0] == 0
    _assert_same_outs(tmp_path, finished)


def test_a_folder_outside_ascii_gives_the_same_bytes(tmp_path, furnish, finished):
    """Given a path, torch.save names what is in the archive by it, but only where it is ASCII."""
    folder = tmp_path / "mit leer & ümläut"
    assert sessions.train(furnish(folder, **DROPOUT))[0] == 0
    _assert_same_outs(folder, finished)


@pytest.mark.extended
def test_a_locale_that_is_not_utf8_changes_nothing(tmp_path, furnish):
    words = {"template": "chat", "system": "Schreibe … für", "instruction": "Título: “ñ”"}
    asked = {"mode": "completion", "max_length": 256, "words": {"law": words}}
    outs = []
    for name, locale in (("utf8", {}), ("ascii", {"PYTHONUTF8": "0", "LC_ALL": "C"})):
        steps = {"train__max_steps": 2, "train__save_steps": 2, "train__warmup_steps": 1}
        folder = furnish(tmp_path / name, **steps)
        prepared = (folder / "data/prepared").resolve()
        (folder / "data/prepared").unlink()
        shutil.copytree(prepared, folder / "data/prepared")
        text = json.dumps(asked, ensure_ascii=False)
        (folder / "data/prepared/train/prompt.json").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "stages.train", *sessions.COMMAND]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONCOERCECLOCALE": "0"}
        environment |= {"TORCHDYNAMO_DISABLE": "1"}  # nothing is compiled
        done = subprocess.run(
            command, cwd=folder, env=environment | locale, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        outs.append(sessions.read_outs(folder))
    assert outs[0] == outs[1]
    assert "Título: “ñ”".encode() in outs[0]["models/adapter/settings.json"]


def test_a_finished_run_is_not_trained_again_unless_fresh(tmp_path, finished):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True, symlinks=True)
    for out in sessions.OUTS[:3]:
        shutil.rmtree(tmp_path / out)
    code, log = sessions.train(tmp_path)
    assert code == 0 and "continuing from" in log.splitlines()[-1]
    _assert_same_outs(tmp_path, finished)
    code, log = sessions.train(tmp_path, environment={"FRESH": "1"})
    assert code == 0 and "continuing from" not in log.rpartition("examples")[2]
    _assert_same_outs(tmp_path, finished)


@pytest.mark.parametrize("at", KILLS.values(), ids=KILLS.keys())
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, furnish, finished, at):
    furnish(tmp_path, **DROPOUT)
    assert sessions.train(tmp_path, at=at)[0] == -9
    assert not (tmp_path / "models/adapter").exists()
    assert sessions.train(tmp_path)[0] == 0
    _assert_same_outs(tmp_path, finished)


def test_a_run_killed_again_and_again_goes_on_to_the_same_bytes(tmp_path, furnish, finished):
    furnish(tmp_path, **DROPOUT)
    killed = sum(
        sessions.kill_after(tmp_path, seconds) == -9 for seconds in (0.3, 0.6, 0.9, 1.2, 1.5)
    )
    assert killed
    assert sessions.train(tmp_path)[0] == 0
    _assert_same_outs(tmp_path, finished)


@pytest.mark.parametrize(("at", "code"), SIGNALS.values(), ids=SIGNALS.keys())
def test_a_signal_saves_and_ends_with_its_code(tmp_path, furnish, finished, at, code):
    furnish(tmp_path, **DROPOUT)
    found, log = sessions.train(tmp_path, at=at)
    assert found == code, log
    step = int(log.partition("interrupted at step ")[2].split()[0])
    saved = sorted(path.name for path in (tmp_path / "models/resume").glob("*/step-*"))
    assert (f"step-{step}" in saved) or (step == 0 and "nothing to save" in log)
    assert not (tmp_path / "models/adapter").exists()
    found, log = sessions.train(tmp_path)
    assert found == 0, log
    _assert_same_outs(tmp_path, finished)


def test_a_torn_checkpoint_is_passed_over(interrupted, finished):
    newest = max((interrupted / "models/resume").glob("*/step-*"))
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:1000])
    code, log = sessions.train(interrupted)
    assert code == 0
    assert f"{newest.name} is not used" in log and "optimizer.pt" in log
    assert "/step-4" in log.partition("continuing from")[2].splitlines()[0]
    _assert_same_outs(interrupted, finished)


def test_the_state_of_another_run_is_refused_by_the_key_that_differs(interrupted, write_params):
    write_params(interrupted, **DROPOUT, lora__r=4)
    code, log = sessions.train(interrupted)
    assert code == 0
    assert "is of another run: lora.r is 4 here, 8 there" in log and "continuing" not in log


def test_a_checkpoint_can_be_continued_explicitly(tmp_path, furnish, finished):
    checkpoint = finished / "models/checkpoints/step-6"
    furnish(tmp_path, **DROPOUT, train__resume_from=str(checkpoint))
    code, log = sessions.train(tmp_path)
    assert code == 0 and "/step-6" in log.partition("continuing from")[2].splitlines()[0]
    _assert_same_outs(tmp_path, finished)


def test_a_finished_run_goes_on_to_more_steps_and_the_card_says_so(tmp_path, furnish, finished):
    start = {"train__resume_from": str(finished / "models/checkpoints/step-8")}
    longer = {**DROPOUT, **start, "train__max_steps": 12}
    assert (
        "set train.resume_accept to [train.max_steps]"
        in sessions.train(furnish(tmp_path / "refused", **longer))[1]
    )
    folder = furnish(tmp_path / "longer", **longer, train__resume_accept=["max_steps"])
    code, log = sessions.train(folder)
    assert code == 0, log
    metrics, before = _metrics(folder), _metrics(finished)
    assert metrics["global_step"] == 12 and metrics["eval_loss_first"] == before["eval_loss_first"]
    card = (folder / "models/adapter/README.md").read_text(encoding="utf-8")
    start = f"step-8 of run {before['fingerprint']}"
    assert f"| continued from | {start}; different: train.max_steps 8 -> 12 |" in card
    rates = {e["step"]: e["learning_rate"] for e in sessions.read_history(folder) if "loss" in e}
    assert rates[9] == pytest.approx(0.01 * 0.3455, rel=0.01)  # cosine at 6 of 10 steps, not 0


def test_another_number_of_processes_goes_on_with_the_same_examples(tmp_path, furnish):
    one = furnish(tmp_path / "one", **EXACT)
    assert sessions.train(one, at="SIGTERM token_nll 14")[0] == 143
    (checkpoint,) = (one / "models/resume").glob("*/step-5")
    start = shutil.copytree(checkpoint, tmp_path / "step-5")
    assert sessions.train(one)[0] == 0
    two = furnish(
        tmp_path / "two",
        **EXACT,
        train__per_device_train_batch_size=2,
        train__resume_from=str(start),
        train__resume_accept=["processes", "per_device_train_batch_size"],
    )
    both = sessions.start_two(two)
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0], _log(two)
    ours, theirs = (sessions.read_losses(folder) for folder in (one, two))
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_the_best_is_judged_anew_where_its_checkpoint_is_lost(tmp_path, furnish, finished):
    checkpoint = tmp_path / "mine"
    shutil.copytree(finished / "models/checkpoints/step-8", checkpoint)
    state = checkpoint / "trainer_state.json"
    state.write_text(
        state.read_text(encoding="utf-8").replace('"best_global_step": 8', '"best_global_step": 4'),
        encoding="utf-8",
    )
    (checkpoint / "checksums.json").unlink()
    seal(checkpoint, tmp_path / "step-8", step=8)
    furnish(tmp_path, **DROPOUT, train__resume_from=str(tmp_path / "step-8"))
    code, log = sessions.train(tmp_path)
    assert code == 0 and "step-4, the best until now, is not beside step-8" in log
    assert _metrics(tmp_path) == _metrics(finished)


def test_an_explicit_checkpoint_of_another_run_is_an_error(tmp_path, furnish, finished):
    checkpoint = finished / "models/checkpoints/step-6"
    furnish(tmp_path, **DROPOUT, train__resume_from=str(checkpoint), train__learning_rate=0.5)
    code, log = sessions.train(tmp_path)
    assert code == 1
    assert "train.learning_rate is 0.5 here, 0.01 there" in log and "Traceback" not in log


def test_an_adapter_can_be_started_from(tmp_path, furnish, finished):
    adapter = finished / "models/adapter"
    furnish(tmp_path, **DROPOUT, train__init_adapter=str(adapter), train__max_steps=4)
    assert sessions.train(tmp_path)[0] == 0
    assert _metrics(tmp_path)["eval_loss_first"] == _metrics(finished)["eval_loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora__alpha": 64.0}, "trained with lora.alpha 16.0; params.yaml has 64.0"),
        ({"lora__use_rslora": True}, "trained with lora.use_rslora False; params.yaml has True"),
    ],
)
def test_an_adapter_that_would_count_otherwise_is_not_started_from(
    tmp_path, furnish, finished, change, message
):
    adapter = finished / "models/adapter"
    furnish(tmp_path, **DROPOUT, train__init_adapter=str(adapter), train__max_steps=4, **change)
    code, log = sessions.train(tmp_path)
    assert code == 1 and message in log and "Traceback" not in log


def test_an_adapter_with_scales_of_its_layers_own_is_not_started_from(
    tmp_path, workspace, finished
):
    adapter = tmp_path / "adapter"
    shutil.copytree(finished / "models/adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["alpha_pattern"] = {"q_proj": 64}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="alpha_pattern .*q_proj"):
        _check(init_adapter=str(adapter))


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_checkpoint(tmp_path, furnish):
    furnish(tmp_path, train__learning_rate=1.0, train__max_grad_norm=0.0, train__warmup_steps=1)
    code, log = sessions.train(tmp_path, at="POISON token_nll 12")
    assert code == 1 and "Traceback" not in log
    assert "not a finite number at step 4; the last good checkpoint is" in log
    assert "/step-2;" in log


def test_training_ends_when_the_evaluation_loss_rises(tmp_path, furnish):
    furnish(tmp_path, train__learning_rate=1.0, train__early_stopping_patience=1)
    assert sessions.train(tmp_path)[0] == 0
    metrics = _metrics(tmp_path)
    assert metrics["global_step"] < 8 and metrics["eval_loss_last"] > metrics["eval_loss_first"]
    code, log = sessions.train(tmp_path)
    assert code == 0 and "train:" not in log.partition("continuing from")[2]
    assert _metrics(tmp_path) == metrics


def test_the_result_does_not_depend_on_how_a_step_is_cut(tmp_path, furnish):
    weights = {}
    for name, changes in {
        "16 x 1, many cuts": {"train__micro_batch_tokens": 256},
        "16 x 1, whole": {"train__micro_batch_tokens": 5000},
        "recomputed": {"train__micro_batch_tokens": 5000, "train__gradient_checkpointing": True},
        "1 x 16": {
            "train__per_device_train_batch_size": 1,
            "train__gradient_accumulation_steps": 16,
        },
    }.items():
        folder = furnish(tmp_path / name, **EXACT, train__max_steps=4, **changes)
        assert sessions.train(folder)[0] == 0
        weights[name] = load_file(folder / "models/adapter" / WEIGHTS)
    first, *others = weights.values()
    for other in others:
        for key, tensor in first.items():
            torch.testing.assert_close(other[key], tensor, rtol=1e-4, atol=1e-6)


TWO = """
distributed_type: MULTI_GPU
use_cpu: true
num_machines: 2
num_processes: 2
rdzv_backend: c10d
mixed_precision: 'no'
"""


def _launch_on_two_machines(folder: Path) -> list[subprocess.CompletedProcess]:
    """`accelerate launch` as each of two machines would call it, with one process on each."""
    (folder / "two.yaml").write_text(TWO, encoding="utf-8")
    head = ["--main_process_ip", "127.0.0.1", "--main_process_port", str(sessions.free_port())]
    machines = [
        sessions.launch(folder, "two.yaml", *head, "--machine_rank", str(rank)) for rank in range(2)
    ]
    said = [machine.communicate()[1] for machine in machines]
    return [
        subprocess.CompletedProcess(machine.args, machine.returncode, stderr=log)
        for machine, log in zip(machines, said, strict=True)
    ]


def test_two_processes_give_what_one_gives_and_go_on_when_one_is_told_to_stop(tmp_path, furnish):
    two, one, stopped = (tmp_path / name for name in ("two", "one", "stopped"))
    whole = EXACT | {"train__logging_steps": 1}
    for folder in (two, stopped):
        furnish(folder, **whole, train__per_device_train_batch_size=2)
    head, other = _launch_on_two_machines(two)
    assert (head.returncode, other.returncode) == (0, 0), head.stderr + other.stderr
    assert "loads and gives the loss that training measured" in head.stderr
    assert json.loads((two / "metrics/cost.json").read_text(encoding="utf-8"))["processes"] == 2
    golden = read_curve(str(ROOT / "tests/golden/tiny-two-processes.tsv"))
    assert sessions.read_losses(two) == pytest.approx(golden, abs=10 * TOLERANCE)

    assert sessions.train(furnish(one, **whole))[0] == 0
    ours, theirs = (load_file(each / "models/adapter" / WEIGHTS) for each in (one, two))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-6)
    assert _without_run(_metrics(two)) == _without_run(_metrics(one))

    ends = {"SIGKILL token_nll 3": [1, -9], "SIGTERM token_nll 8": [143, 143], "": [0, 0]}
    for at, codes in ends.items():
        both = sessions.start_two(stopped, at=at)
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == codes, _log(stopped)
    assert _log(stopped).count("another process that trains with this one is gone") == 1
    assert "Traceback" not in _log(stopped)
    ours, theirs = sessions.read_outs(stopped), sessions.read_outs(two)
    changed = {name for name in theirs if ours[name] != theirs[name]}
    # Sessions leave the code out of the fingerprint, and so out of the sums.
    files = {"fingerprint.json", "checksums.json", "train.json"}
    assert {Path(name).name for name in changed} == files


def _without_run(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if name != "fingerprint"}


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text(encoding="utf-8")


def _model(base: Path = Path("models/base")):
    params = load()
    return add_lora(load_base(base, params.quantization, params.compute), params.lora, params.seed)


def test_gradients_before_and_after_an_evaluation_are_equal(workspace):
    """bitsandbytes packs weights at an evaluation on some CPUs, and then loses gradients."""
    from finetune.flat.losses import token_nll

    model, rows = _model(), TokenRows(Path("data/prepared/train"))
    (batch,) = Steps(rows, make_plan(load(), rows, 1), 0)[0].micro_batches[:1]

    def gradients() -> dict[str, torch.Tensor]:
        model.train().zero_grad()
        token_nll(model, batch).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    before = gradients()
    measure(model, evaluation_batches(rows, 300, padded=False), torch.device("cpu"))
    after = gradients()
    assert before and all(torch.equal(before[name], after[name]) for name in before)


def test_evaluation_does_not_depend_on_batches_or_processes(workspace):
    model, rows = _model(), TokenRows(Path("data/prepared/validation"))
    cpu = torch.device("cpu")
    whole = measure(model, evaluation_batches(rows, 5000, padded=False), cpu).mean
    parts = []
    shares = (evaluation_batches(rows, 100, False, process, 3) for process in range(3))
    for share in shares:
        measure(model, share, cpu, gather=lambda sums: parts.append(sums) or sums)
    loss, tokens = sum(parts)[0].tolist()
    assert tokens == rows.supervised.sum()
    assert loss / tokens == pytest.approx(whole, rel=1e-5)


def test_a_lora_b_that_was_never_trained_is_an_error(workspace, tmp_path):
    model = _model()
    weights = {n: t.clone() + 1 for n, t in _adapter(model).items()}
    save_file(weights, tmp_path / WEIGHTS)
    check_trained(tmp_path)
    name = max(name for name in weights if "lora_B" in name)
    save_file({**weights, name: weights[name] * 0}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{name} is all zeros"):
        check_trained(tmp_path)


def _adapter(model) -> dict[str, torch.Tensor]:
    from stages.train.adapter import adapter_weights

    return adapter_weights(model)


def test_an_adapter_of_another_shape_is_an_error_that_names_it(workspace, tmp_path):
    model = _model()
    weights = _adapter(model)
    first = min(weights)
    save_file({name: t for name, t in weights.items() if name != first}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{first} has shape None, the model of params.yaml"):
        read_weights(model, tmp_path)


def test_an_adapter_that_does_not_load_as_trained_is_an_error(workspace, tmp_path):
    from stages.train.verify import compare, reload_loss

    model, params = _model(), load()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.1
    rows = TokenRows(Path("data/prepared/validation"))
    trained = measure(
        model, evaluation_batches(rows, 300, padded=False), torch.device("cpu")
    ).sample
    partial = tmp_path / "partial"
    partial.mkdir()
    write_adapter(partial, model, _adapter(model), {"name": "tiny", "revision": None})
    seal(partial, tmp_path / "adapter")
    places = (Path("models/base"), Path("data/prepared"), tmp_path / "adapter", 300)
    found = reload_loss(params, *places)
    compare(found, trained, 1e-3, tmp_path)
    with pytest.raises(ValueError, match="what was saved is not what was trained"):
        compare(found, trained * 1.01, 1e-3, tmp_path)
    (tmp_path / "adapter" / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(ValueError, match="sha256 differs"):
        reload_loss(params, *places)


def _check(**changes: object) -> None:
    params = load()
    params = replace(params, train=replace(params.train, **changes))
    rows, validation = (TokenRows(Path("data/prepared") / s) for s in ("train", "validation"))
    plan = make_plan(params, rows, 1)
    check(params, Path("models/base"), plan, validation)
    training_arguments(params, params.compute, plan, Path("out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": "adam"}, "train.optim is adam: transformers has .*paged_adamw_8bit"),
        ({"optim": "galore_adamw"}, "train.optim is galore_adamw, which cannot be used here"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "warmup_stable_decay, which needs other"),
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type is cosin: transformers has .*cosine"),
        (
            {"max_steps": None, "num_train_epochs": 2.0, "warmup_steps": 5},
            "warmup_steps is 5, but 2.0 epochs are 5 steps",
        ),
        ({"init_adapter": "nowhere"}, "train.init_adapter is nowhere: there is no adapter_model"),
        ({"report_to": ["wandb"]}, "pip install wandb"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_are_loaded(
    workspace, monkeypatch, changes, message
):
    monkeypatch.setattr("stages.train.checks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        _check(**changes)


def test_a_report_that_cannot_begin_is_one_line(workspace, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    params = load()
    params = replace(params, train=replace(params.train, report_to=["wandb"]))
    with pytest.raises(ValueError, match="report_to has wandb, .*WANDB_API_KEY invalid.*offline"):
        start_reports(params)


def test_target_modules_that_the_model_lacks_are_refused_with_those_it_has(workspace, write_params):
    write_params(workspace, lora__target_modules=["q_proj", "query"])
    with pytest.raises(ValueError, match="has query, which the model lacks: it has .*q_proj"):
        _check()


def test_very_many_passes_are_a_warning(workspace, caplog):
    _check(max_steps=240)
    assert "warning" not in caplog.text
    _check(max_steps=2400)
    assert "seen 960 times" in caplog.text


def test_fewer_processes_than_configured_are_an_error(workspace, write_params, monkeypatch):
    config = workspace / "two.yaml"
    config.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\n", encoding="utf-8")
    launch = {"command": f"accelerate launch --config_file {config}", "config": str(config)}
    write_params(workspace, launch=launch)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ValueError, match="num_processes 2, but 1 were started"):
        _check()
