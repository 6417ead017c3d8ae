"""lm-evaluation-harness on the trained adapter, as it was trained: in 4 bits, on the same base.

    pip install lm_eval==0.4.13
    python -m tools.harness run --model adapter --tasks arc_easy hellaswag --limit 200
    python -m tools.harness run --model adapter --model_args base_only=True --tasks arc_easy

Every option is the harness's own. `--model adapter` loads base, quantisation and adapter by the
adapter's `settings.json`; `--model_args` takes adapter=FOLDER, base_only=True and low_memory=True.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetune.errors import run

HARNESS = "lm_eval==0.4.13"


def main() -> None:
    if not find_spec("lm_eval"):
        raise ValueError(
            f"lm-evaluation-harness is not installed: pip install {HARNESS}, in an environment of "
            "its own (docs/evaluation.md says why)"
        )
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def register() -> None:
    """Make `--model adapter` known to the harness."""
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM

    from tools.assistant import load_assistant

    @register_model("adapter")
    class AdapterModel(HFLM):
        """The harness's model of transformers, around one that is loaded as `tools.generate`."""

        def __init__(
            self,
            adapter: str = "models/adapter",
            base_only: bool = False,
            low_memory: bool = False,
            device: str | None = None,
            **options: Any,
        ) -> None:
            kind = "auto" if device is None else device.partition(":")[0]
            loaded = load_assistant(Path(adapter), kind, base_only=base_only, low_memory=low_memory)
            super().__init__(pretrained=loaded.model, tokenizer=loaded.tokenizer, **options)


if __name__ == "__main__":
    run(main)
