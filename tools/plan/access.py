"""Whether the hub will give the run what it asks for: gated, private, gone, or not reachable.

One question for each repository, at the same time, a few seconds at most. A token is used where
there is one, and never shown.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finetune.hub_client import clear_errors
from finetune.params import Params

SECONDS = 5.0
# How finetune.hub_client says that there was no answer.
NO_ANSWER = ("cannot be reached", "HF_HUB_OFFLINE is set", "try again later")


@dataclass(frozen=True)
class Access:
    """One repository: `state` is here | open | gated, granted | refused | unknown."""

    repository: str
    kind: str  # model | dataset
    state: str
    message: str


def check_access(params: Params, here: Path | None, *, offline: bool = False) -> list[Access]:
    """Of the base model and every dataset of the hub. `here` is the base's folder of weights."""
    wanted = list(_repositories(params, here))
    if not wanted:
        return []
    token = _has_token()
    with ThreadPoolExecutor(max_workers=8) as workers:
        return list(workers.map(lambda each: _check(*each, token, offline), wanted))


def _repositories(params: Params, here: Path | None) -> Iterator[tuple[str, str, str, bool]]:
    """Name, kind, revision, and whether it is here already; each repository once."""
    if params.model.source == "hub":
        yield params.model.name, "model", params.model.revision, here is not None
    yield from sorted(
        {(hub.name, "dataset", hub.revision, False) for hub in params.data.hub.values()}
    )


def _check(name: str, kind: str, revision: str, here: bool, token: bool, offline: bool) -> Access:
    if here:
        return Access(name, kind, "here", "its weights are on this machine")
    words = "HF_TOKEN is set" if token else "no HF_TOKEN here"
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    if offline:
        return Access(name, kind, "unknown", f"not asked; {words}; terms, if any: {page}")
    try:
        with clear_errors(name, revision, kind):
            gated = _ask(name, kind, revision)
    except ValueError as error:
        text = str(error)
        if any(reason in text for reason in NO_ANSWER):
            message = f"the hub does not answer; {words}; terms, if any: {page}"
            return Access(name, kind, "unknown", message)
        return Access(name, kind, "refused", f"{text} ({words})")
    if gated:
        return Access(name, kind, "granted", f"gated, and its terms are accepted ({words})")
    return Access(name, kind, "open", "open to all")


def _ask(name: str, kind: str, revision: str) -> bool:
    """Whether the repository is gated. Raises the hub client's errors where this user may not
    read it."""
    from huggingface_hub import HfApi

    api = HfApi()
    info = api.model_info if kind == "model" else api.dataset_info
    found = info(name, revision=revision, timeout=SECONDS)
    if found.gated:
        api.auth_check(name, repo_type=kind)
    return bool(found.gated)


def _has_token() -> bool:
    """Whether the hub client has a token, of HF_TOKEN or of a login."""
    from huggingface_hub import get_token

    return get_token() is not None
