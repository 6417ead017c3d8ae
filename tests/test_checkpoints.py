"""A checkpoint is whole or it is not used, and never another run's."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.checkpoints import copy_sealed, find_damage, list_steps, seal
from finetune.params import load
from finetune.records import write_json
from stages.train import fingerprint
from stages.train.fingerprint import describe_run, differences, digest
from stages.train.store import Store
from tests.test_contract import imported

FACTS = {"seed": 1, "lora": {"r": 8}}


def _sealed(folder: Path) -> Path:
    partial = folder.with_name(".partial")
    (partial / "deep").mkdir(parents=True)
    (partial / "weights.bin").write_bytes(b"weights")
    (partial / "deep" / "state.json").write_text("{}", encoding="utf-8")
    seal(partial, folder, step=3)
    return folder


def _save(store: Store, step: int, best: int | None = None) -> None:
    store.begin(step)
    (store.partial(step) / "trainer_state.json").write_text(
        json.dumps({"global_step": step}), encoding="utf-8"
    )
    store.commit(step, best)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    store = Store(FACTS, limit=2, every=10, unfinished=2)
    store.open(fresh=False)
    return store


def test_a_sealed_folder_is_whole(tmp_path):
    folder = _sealed(tmp_path / "step-3")
    assert find_damage(folder) is None
    assert json.loads((folder / "checksums.json").read_text(encoding="utf-8"))["step"] == 3
    assert not (tmp_path / ".partial").exists()


def test_sealing_again_replaces_the_folder(tmp_path):
    _sealed(tmp_path / "step-3")
    assert find_damage(_sealed(tmp_path / "step-3")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]


@pytest.mark.parametrize("name", ["weights.bin", "deep/state.json", "checksums.json"])
def test_a_missing_or_changed_file_is_named(tmp_path, name):
    changed, missing = _sealed(tmp_path / "a"), _sealed(tmp_path / "b")
    (changed / name).write_bytes(b"{")
    (missing / name).unlink()
    assert str(changed / name) in find_damage(changed)
    assert str(missing / name) in find_damage(missing)


def test_steps_are_in_the_order_of_numbers_and_nothing_else_counts(tmp_path):
    for name in ("step-10", "step-9", ".step-11.partial", "step-x", "best"):
        (tmp_path / name).mkdir()
    assert list(list_steps(tmp_path)) == [9, 10]


def test_a_copy_is_whole(tmp_path):
    copy_sealed(_sealed(tmp_path / "step-3"), tmp_path / "copy")
    assert find_damage(tmp_path / "copy") is None


def test_the_disk_holds_the_last_ones_and_the_best(store):
    for step in (10, 20, 30, 40):
        _save(store, step, best=10)
    assert list(list_steps(store.folder)) == [10, 30, 40]


def test_what_an_interruption_saved_leaves_with_the_next_checkpoint(store):
    for step in (10, 20, 25):
        _save(store, step, best=10)
    assert store.newest().name == "step-25"
    for step in (27, 30):
        _save(store, step, best=10)
    assert list(list_steps(store.folder)) == [10, 20, 30]


def test_the_one_before_a_damaged_checkpoint_is_used(store, caplog):
    for step in (10, 20):
        _save(store, step)
    (store.folder / "step-20" / "trainer_state.json").write_text("torn", encoding="utf-8")
    assert store.newest().name == "step-10"
    assert "step-20 is not used" in caplog.text and "trainer_state.json" in caplog.text


def test_what_was_half_written_is_removed_at_the_next_start(store):
    store.begin(10)
    store._lock.close()
    again = Store(FACTS, limit=2, every=10, unfinished=2)
    again.open(fresh=False)
    assert not list(again.folder.glob(".step-*"))
    assert again.newest() is None


def test_fresh_forgets_the_state(store):
    _save(store, 10)
    store._lock.close()
    again = Store(FACTS, limit=2, every=10, unfinished=2)
    again.open(fresh=True)
    assert again.newest() is None


def test_a_second_trainer_of_the_same_run_is_refused(store):
    with pytest.raises(ValueError, match="another process trains this run"):
        Store(FACTS, limit=2, every=10, unfinished=2).open(fresh=False)


def test_another_run_starts_at_zero_and_the_key_that_differs_is_named(store, caplog):
    caplog.set_level("INFO")
    _save(store, 10)
    store._lock.close()
    other = Store({"seed": 1, "lora": {"r": 16}}, limit=2, every=10, unfinished=2)
    other.open(fresh=False)
    assert other.newest() is None
    assert "lora.r is 16 here, 8 there" in caplog.text


def _leave(root: Path, name: str, *, step: int, finished: bool, age: float) -> Path:
    """The state of a run that somebody made `age` seconds ago."""
    folder = root / name
    (folder / f"step-{step}").mkdir(parents=True)
    (folder / ".lock").touch()
    if finished:
        (folder / "finished").touch()
    for path in (folder / f"step-{step}", folder):
        os.utime(path, (time.time() - age,) * 2)
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """models/resume of a main repository."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path / "models" / "resume"


def _names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


def test_finished_runs_go_before_unfinished_ones_and_all_is_told(root, caplog):
    caplog.set_level("INFO")
    _leave(root, "long", step=60_000, finished=False, age=900)
    for age, name in enumerate(("quick", "quicker", "quickest")):
        _leave(root, name, step=6, finished=True, age=100 + age)
    with (_leave(root, "running", step=1, finished=False, age=50) / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Store({"seed": 2}, limit=2, every=10, unfinished=1).open(fresh=False)
    assert _names(root) == {digest({"seed": 2}), "long", "quick", "running"}
    assert "keeping the state of 1 unfinished" in caplog.text and "60000" in caplog.text
    assert "quicker (step 6): the state of an earlier run, which had finished" in caplog.text


def test_of_unfinished_runs_the_latest_are_kept_and_a_lost_one_is_a_warning(root, caplog):
    for age in (1, 2, 3):
        _leave(root, f"run-{age}", step=age, finished=False, age=100 * age)
    Store({"seed": 2}, limit=2, every=10, unfinished=2).open(fresh=False)
    assert _names(root) == {digest({"seed": 2}), "run-1", "run-2"}
    assert "run-3 (step 3), which had not finished: train.keep_unfinished is 2" in caplog.text


def test_the_run_that_is_continued_from_is_not_removed(root):
    start = _leave(root, "start", step=8, finished=True, age=900)
    _leave(root, "later", step=8, finished=True, age=100)
    store = Store({"seed": 2}, limit=2, every=10, unfinished=0)
    store.open(fresh=False, start=start / "step-8")
    assert _names(root) == {digest({"seed": 2}), "start", "later"}


def test_a_run_is_finished_when_its_outs_are_written_and_no_longer_when_it_goes_on(store):
    _save(store, 10)
    store.finish()
    assert (store.folder / "finished").exists()
    _save(store, 20)
    assert not (store.folder / "finished").exists()


def test_an_explicit_checkpoint_brings_the_earlier_ones_beside_it(store, tmp_path):
    for step in (10, 20, 30):
        _save(store, step, best=10)
        copy_sealed(store.folder / f"step-{step}", tmp_path / f"step-{step}")
    store._lock.close()
    again = Store(FACTS, limit=2, every=10, unfinished=2)
    again.open(fresh=True)
    again.adopt(tmp_path / "step-20")
    assert list(list_steps(again.folder)) == [10, 20]
    assert again.newest().name == "step-20"


def test_the_newer_of_an_explicit_checkpoint_and_the_own_state_is_used(store, tmp_path):
    _save(store, 10)
    copy_sealed(store.folder / "step-10", tmp_path / "mine")
    _save(store, 20)
    store.adopt(tmp_path / "mine")
    assert store.newest().name == "step-20"


@pytest.fixture
def describe(workspace, write_params) -> Callable[..., dict]:
    """A function that describes the run of params.yaml with some keys changed."""

    def facts(processes: int = 1, **changes: object) -> dict:
        write_params(workspace, **changes)
        return describe_run(load(), Path("models/base"), Path("data/prepared"), processes)

    return facts


def test_the_fingerprint_covers_what_shapes_the_run_and_nothing_else(describe):
    plain = describe()
    for same in ({"train__save_total_limit": 5}, {"train__keep_unfinished": 1}, {"name": "other"}):
        assert describe(**same) == plain
    for key, value in {
        "seed": 43,
        "lora__r": 4,
        "train__learning_rate": 0.5,
        "train__micro_batch_tokens": 500,
        "quantization__double_quantization": False,
    }.items():
        (found,) = differences(describe(**{key: value}), plain)
        assert found.startswith(f"{key.replace('__', '.')} is {value} here")


def test_the_fingerprint_covers_data_code_and_libraries(workspace, monkeypatch):
    here = describe_run(load(), Path("models/base"), Path("data/prepared"), 1)
    assert "stages/train/steps.py" in here["code"] and "finetune/flat/batches.py" in here["code"]
    assert "stages/train/cost.py" not in here["code"]
    assert here["versions"].keys() == {"torch", "transformers", "peft", "bitsandbytes"}
    monkeypatch.setattr(fingerprint, "file_sha256", lambda path: path.suffix)
    monkeypatch.setattr(fingerprint, "version", lambda name: "0")
    there = describe_run(load(), Path("models/base"), Path("data/prepared"), 2)
    changed = {line.split(" is ")[0] for line in differences(here, there)}
    assert {"processes", "base", "data.train.tokens-00000.arrow", "versions.torch"} <= changed
    assert "data.validation.tokens-00000.arrow" in changed


CODE = '''
def double(x):
    """Twice x."""
    return 2 * x  # exactly
'''


@pytest.mark.parametrize(
    ("code", "same"),
    [
        (CODE.replace("# exactly", "# or x + x"), True),
        (CODE.replace("Twice x.", "x and x."), True),
        (CODE.replace('    """Twice x."""\n', ""), True),
        (CODE.replace("2 * x", "(2\n        * x)"), True),
        (CODE.replace("2 * x", "3 * x"), False),
        (CODE.replace("2 * x", "x * 2"), False),
        (CODE.replace("(x)", "(x=1)"), False),
    ],
)
def test_code_is_known_by_what_it_does(tmp_path, code, same):
    for name, text in (("old.py", CODE), ("new.py", code)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    old, new = (fingerprint.code_sha256(tmp_path / name) for name in ("old.py", "new.py"))
    assert (old == new) == same


@pytest.fixture
def elsewhere(describe, tmp_path) -> Path:
    """A checkpoint of the run of params.yaml, copied out of its store."""
    partial = tmp_path / ".partial"
    partial.mkdir()
    write_json(partial / "fingerprint.json", describe())
    seal(partial, tmp_path / "mine", step=6)
    return tmp_path / "mine"


def test_an_explicit_checkpoint_of_this_run_continues_it(describe, elsewhere):
    plain = describe()
    assert describe(train__resume_from=str(elsewhere)) == plain


def test_an_explicit_checkpoint_must_be_there_and_whole_and_of_this_run(describe, elsewhere):
    start = {"train__resume_from": str(elsewhere)}
    with pytest.raises(ValueError, match="seed is 2 here, 42 there; .*set train.init_adapter"):
        describe(**start, seed=2)
    with pytest.raises(ValueError, match=r"max_steps is 9 here.*accept to \[train.max_steps"):
        describe(**start, train__max_steps=9)
    (elsewhere / "fingerprint.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        describe(**start)
    with pytest.raises(ValueError, match="DVC deletes models/checkpoints"):
        describe(train__resume_from="models/checkpoints/step-10")


@pytest.mark.parametrize(
    ("accepted", "changes"),
    [
        ("max_steps", {"train__max_steps": 16}),
        ("train.max_steps", {"train__max_steps": 16}),
        ("versions.torch", {}),
        ("versions", {}),
        ("code", {}),
    ],
)
def test_named_differences_are_accepted_and_recorded(
    describe, elsewhere, monkeypatch, accepted, changes
):
    if "versions" in accepted:
        real = fingerprint.version
        later = {"torch": "9.0"}
        monkeypatch.setattr(fingerprint, "version", lambda name: later.get(name) or real(name))
    if accepted == "code":
        monkeypatch.setattr(fingerprint, "_code", lambda: {"stages/train/steps.py": "other"})
    start = {"train__resume_from": str(elsewhere), **changes}
    with pytest.raises(ValueError, match="of another run: .*train.resume_accept to"):
        describe(**start)
    facts = describe(**start, train__resume_accept=[accepted])
    continued = facts.pop("continued")
    assert continued["checkpoint"] == "mine" and continued["changes"]
    assert all(key.startswith(("train", "versions", "code")) for key in continued["changes"])


@pytest.mark.parametrize(
    ("accepted", "changes"),
    [
        (["seed"], {"seed": 2}),
        (["lora.r"], {"lora__r": 4}),
        (["learning_rate"], {"train__learning_rate": 0.5}),
        (["max_steps"], {"train__max_steps": 16, "train__eval_steps": 4}),
    ],
)
def test_what_was_not_named_or_cannot_continue_is_refused(describe, elsewhere, accepted, changes):
    with pytest.raises(ValueError, match="of another run"):
        describe(train__resume_from=str(elsewhere), train__resume_accept=accepted, **changes)


def test_another_number_of_processes_must_have_the_same_examples_in_a_step(describe, elsewhere):
    start = {"train__resume_from": str(elsewhere)}
    names = ["processes", "per_device_train_batch_size"]
    with pytest.raises(ValueError, match="hold 16 examples over 1 processes; here they hold 32"):
        describe(2, **start, train__resume_accept=names)
    half = {"train__per_device_train_batch_size": 2}
    facts = describe(2, **start, **half, train__resume_accept=names)
    assert facts["continued"]["changes"]["processes"] == {"from": 1, "to": 2}


# What train imports and what shapes no number of the adapter: it checks, words, times or writes.
SHAPES_NOTHING = {
    "finetune/captured.py",
    "finetune/checkpoints.py",
    "finetune/errors.py",
    "finetune/hub_client.py",
    "finetune/model/weights.py",
    "finetune/params.py",
    "finetune/patience.py",
    "finetune/records.py",
    "stages/cost.py",
    "stages/train/__main__.py",
    "stages/train/card.py",
    "stages/train/checks.py",
    "stages/train/cost.py",
    "stages/train/curves.py",
    "stages/train/fingerprint.py",
    "stages/train/health.py",
    "stages/train/interruption.py",
    "stages/train/outputs.py",
    "stages/train/store.py",
    "stages/train/verify.py",
}


def test_every_file_that_train_imports_is_in_the_fingerprint_or_known_to_shape_nothing():
    files = {path.as_posix() for path in imported(Path("stages/train/__main__.py"))}
    assert files - set(fingerprint._code()) == SHAPES_NOTHING
