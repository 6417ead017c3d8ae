"""A checkpoint is whole or it is not used, and never another run's."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from finetune.checkpoints import copy_sealed, find_damage, list_steps, seal
from stages.train.fingerprint import describe_run, differences, digest
from stages.train.store import Store

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
    store = Store(FACTS, limit=2, every=10)
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
    again = Store(FACTS, limit=2, every=10)
    again.open(fresh=False)
    assert not list(again.folder.glob(".step-*"))
    assert again.newest() is None


def test_fresh_forgets_the_state(store):
    _save(store, 10)
    store._lock.close()
    again = Store(FACTS, limit=2, every=10)
    again.open(fresh=True)
    assert again.newest() is None


def test_a_second_trainer_of_the_same_run_is_refused(store):
    with pytest.raises(ValueError, match="another process trains this run"):
        Store(FACTS, limit=2, every=10).open(fresh=False)


def test_another_run_starts_at_zero_and_the_key_that_differs_is_named(store, caplog):
    caplog.set_level("INFO")
    _save(store, 10)
    store._lock.close()
    other = Store({"seed": 1, "lora": {"r": 16}}, limit=2, every=10)
    other.open(fresh=False)
    assert other.newest() is None
    assert "lora.r is 16 here, 8 there" in caplog.text


def test_one_earlier_run_is_kept_and_those_in_training_stay(store, tmp_path):
    root = tmp_path / "models" / "resume"
    for age, name in enumerate(("running", "old", "older")):
        (root / name).mkdir()
        os.utime(root / name, (time.time() - 100 * (age + 1),) * 2)
    with (root / "running" / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Store({"seed": 2}, limit=2, every=10).open(fresh=False)
        names = {path.name for path in root.iterdir() if path.is_dir()}
    assert names == {digest({"seed": 2}), digest(FACTS), "running", "old"}


def test_an_explicit_checkpoint_must_be_of_this_run_and_whole(store, tmp_path):
    _save(store, 10)
    copy_sealed(store.folder / "step-10", tmp_path / "mine")
    other = Store({"seed": 2, "lora": {"r": 8}}, limit=2, every=10)
    with pytest.raises(ValueError, match="seed is 2 here, 1 there; .*train.init_adapter"):
        other.adopt(tmp_path / "mine")
    (tmp_path / "mine" / "fingerprint.json").unlink()
    with pytest.raises(ValueError, match="damaged"):
        store.adopt(tmp_path / "mine")
    with pytest.raises(ValueError, match="DVC deletes models/checkpoints"):
        store.adopt(tmp_path / "models" / "checkpoints" / "step-10")


def test_an_explicit_checkpoint_brings_the_earlier_ones_beside_it(store, tmp_path):
    for step in (10, 20, 30):
        _save(store, step, best=10)
        copy_sealed(store.folder / f"step-{step}", tmp_path / f"step-{step}")
    store._lock.close()
    again = Store(FACTS, limit=2, every=10)
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


def test_the_fingerprint_covers_what_shapes_the_run_and_nothing_else(workspace, write_params):
    from finetune.params import load

    def facts(**changes: object) -> dict:
        write_params(workspace, **changes)
        return describe_run(load(), Path("models/base"), Path("data/prepared"), 1)

    plain = facts()
    for same in ({"train__save_total_limit": 5}, {"train__resume_from": "x"}, {"name": "other"}):
        assert facts(**same) == plain
    for key, value in {
        "seed": 43,
        "lora__r": 4,
        "train__learning_rate": 0.5,
        "train__micro_batch_tokens": 500,
        "quantization__double_quantization": False,
    }.items():
        (found,) = differences(facts(**{key: value}), plain)
        assert found.startswith(f"{key.replace('__', '.')} is {value} here")


def test_the_fingerprint_covers_data_and_code(workspace, monkeypatch):
    from finetune.params import load
    from stages.train import fingerprint

    here = describe_run(load(), Path("models/base"), Path("data/prepared"), 1)
    assert "stages/train/trainer.py" in here["code"] and "finetune/flat/batches.py" in here["code"]
    monkeypatch.setattr(fingerprint, "file_sha256", lambda path: path.suffix)
    there = describe_run(load(), Path("models/base"), Path("data/prepared"), 2)
    changed = {line.split(" is ")[0] for line in differences(here, there)}
    assert {"processes", "base", "data.train.tokens-00000.arrow"} <= changed
    assert "data.validation.tokens-00000.arrow" in changed
