"""Push an exported form to the Hugging Face Hub, with its card, once it has been scored."""

import argparse
import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

from finetune.checkpoints import seal_of
from finetune.params import Params

log = logging.getLogger(__name__)


def push(arguments: argparse.Namespace, params: Params) -> None:
    """Upload models/export/FORM as one commit of the model repository `arguments.to`.

    The repository is made where it is not there, private unless --public. Raises ValueError where
    the form was not exported or not scored, is of another adapter or has lost the tuning, where an
    adapter's base is not on the hub, and where the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    from tools.card.making import write_card_if_possible

    folder, scored = check(arguments, params)
    if not (token := os.environ.get("HF_TOKEN")):
        raise ValueError(
            "HF_TOKEN is not set: make a token that may write at "
            "https://huggingface.co/settings/tokens"
        )
    write_card_if_possible(folder, arguments.form, adapter=arguments.adapter, scored=scored)
    api, name = HfApi(token=token), arguments.to
    try:
        api.create_repo(name, private=not arguments.public, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            ignore_patterns=["base/**"],  # of another publisher
            commit_message=f"{params.name} of commit {_commit()}",
        )
    except OfflineModeIsEnabled:
        raise ValueError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it") from None
    except HTTPError as error:
        status = getattr(error.response, "status_code", None)
        if isinstance(error, HfHubHTTPError) and status in (401, 403):
            raise ValueError(
                f"the hub answered {status} to {name}: HF_TOKEN must be one that may write there"
            ) from None
        reason = f"answered {status}" if status else "cannot be reached"
        raise ValueError(f"the hub {reason} while {name} was pushed: try again later") from None
    log.info(f"pushed: {done.commit_url}")


def check(arguments: argparse.Namespace, params: Params) -> tuple[Path, dict[str, Any]]:
    """The folder to push, and how it was scored. Raises ValueError where it should not be."""
    form, again = arguments.form, f"run `python -m tools.export {arguments.form}` first"
    if not arguments.to or arguments.to.count("/") != 1:
        raise ValueError(f"--to is {arguments.to or 'missing'}: name a repository, OWNER/NAME")
    folder, scored = arguments.out / form, arguments.metrics / f"export-{form}.json"
    for path in (folder, scored):
        if not path.exists():
            raise ValueError(f"{path} is not there: {again}")
    metrics = json.loads(scored.read_text(encoding="utf-8"))
    if metrics.get("adapter_sha256") != seal_of(arguments.adapter):
        raise ValueError(f"{folder} is of another adapter than {arguments.adapter}: {again}")
    gap = metrics["gap"].get("loss")
    if gap is not None and gap["value"] > params.export.max_loss_gap:
        raise ValueError(
            f"{scored} has a gap of {gap['value']}, above export.max_loss_gap "
            f"{params.export.max_loss_gap}: {form} has lost the tuning"
        )
    settings = json.loads((arguments.adapter / "settings.json").read_text(encoding="utf-8"))
    base = settings["base"]["model"]
    if form in ("adapter", "gguf-adapter") and base["source"] != "hub":
        raise ValueError(
            f"the base model {base['name']} is not on the hub (model.source: {base['source']}), so "
            f"nobody could load this {form} by its name: push --form merged"
        )
    return folder, metrics


def _commit() -> str:
    """The commit that is checked out, "-dirty" where files were changed; "unknown" without Git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    return done.stdout.strip() or "unknown"
