"""What the command line asks for; nothing heavy, so that a mistake is told at once."""

from dataclasses import dataclass
from pathlib import Path

from tools.plan.devices import Device


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    device: Device | None = None
    price: float | None = None
    rows: int | None = None
    row_tokens: int | None = None
    offline: bool = False


def find_params(name: str, root: Path) -> Path:
    """The file that `name` means: a path, or a preset's name. Raises ValueError for neither."""
    for path in (Path(name), root / "presets" / name, root / "presets" / f"{name}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.stem for path in (root / "presets").glob("*.yaml"))
    raise ValueError(f"{name} is no file and no preset; presets are {', '.join(known)}")
