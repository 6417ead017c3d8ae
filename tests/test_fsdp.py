"""Two processes that share one 4-bit model (FSDP) give what one process gives, also when killed."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import sessions
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

FOUR_BIT = {
    "quantization": {
        "type": "nf4",
        "double_quantization": True,
        "storage": "float32",
        "dequantize": False,
    },
    "train__optim": "adamw_torch",
    "train__logging_steps": 1,
}


def _launch(folder: Path, at: str = "nothing") -> tuple[int, str]:
    """Run the stage as presets/launch/fsdp.yaml says; exit code, and what it says."""
    config = ROOT / "presets" / "launch" / "fsdp.yaml"
    (folder / "fsdp.yaml").write_text(
        config.read_text(encoding="utf-8") + "use_cpu: true\n", encoding="utf-8"
    )
    port = ["--main_process_port", str(sessions.free_port())]
    process = sessions.launch(folder, "fsdp.yaml", *port, module=("tests.sharded", at))
    log = process.communicate()[1]
    return process.returncode, log


def _losses(folder: Path) -> list[tuple[int, float]]:
    history = sessions.read_history(folder)
    return [(entry["step"], entry.get("loss", entry.get("eval_loss"))) for entry in history]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, furnish) -> Path:
    """A folder in which one process has trained."""
    folder = furnish(tmp_path_factory.mktemp("alone"), **FOUR_BIT)
    code, log = sessions.train(folder)
    assert code == 0, log
    return folder


@pytest.mark.extended
@pytest.mark.parametrize("at", [None, "SIGKILL write_adapter 2"], ids=["at once", "killed between"])
def test_two_processes_give_what_one_gives(tmp_path, furnish, alone, at):
    furnish(tmp_path, **FOUR_BIT, train__per_device_train_batch_size=2)
    if at:
        code, log = _launch(tmp_path, at)
        assert code != 0 and not (tmp_path / "models" / "adapter").exists(), log
    code, log = _launch(tmp_path)
    assert code == 0, log
    assert ("continuing from" in log) == bool(at)
    assert (tmp_path / "models/checkpoints/step-8/optimizer_0").is_dir()  # a part for each process
    found, expected = _losses(tmp_path), _losses(alone)
    assert [step for step, _ in found] == [step for step, _ in expected]
    for (step, ours), (_, theirs) in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5), step
    whole, parts = (
        load_file(folder / "models/adapter/adapter_model.safetensors")
        for folder in (alone, tmp_path)
    )
    assert {name: each.shape for name, each in parts.items()} == {
        name: each.shape for name, each in whole.items()
    }
    for name, tensor in parts.items():
        assert (tensor - whole[name]).norm() < 1e-3 * whole[name].norm(), name
