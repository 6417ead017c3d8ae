"""Which adapter `evaluate.checkpoint` names."""

from pathlib import Path

from finetune.checkpoints import find_damage, list_steps


def choose(name: str, best: Path, checkpoints: Path | None) -> Path:
    """The folder of `best`, of the `last` step, or of `step-N`.

    Raises ValueError naming the steps there are, if that one is not among them, or the first file
    of it that is missing or changed.
    """
    steps = list_steps(checkpoints) if checkpoints else {}
    folders = {f"step-{step}": folder for step, folder in steps.items()}
    named = {"best": best, **folders}
    if steps:
        named["last"] = steps[max(steps)]
    if name not in named:
        raise ValueError(
            f"evaluate.checkpoint is {name}: there is best and {', '.join(folders) or 'no step'} "
            "(train.save_total_limit says how many are kept)"
        )
    if damage := find_damage(named[name]):
        raise ValueError(f"{damage}: run `dvc repro --force train`, or `dvc checkout models`")
    return named[name]
