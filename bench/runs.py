"""What is measured: each run is one engine on one kind of data, in a process of its own."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Run:
    """One measurement.

    `examples` make an optimizer step; `options` are the engine's own. `adapter` is the LoRA of the
    law preset (rank 16, every linear layer) or of the food preset (rank 32, query, key and value).
    `warmup_steps` are not measured.
    """

    engine: str
    data: str
    examples: int
    adapter: str = "law"
    options: dict[str, object] = field(default_factory=dict)
    warmup_steps: int = 4


def _own(data: str, examples: int, adapter: str = "law", **options: object) -> Run:
    return Run("own", data, examples, adapter, options)


RUNS = {
    # This project, as the law preset says.
    "own-law-64": _own("law", 64),
    "own-law-128": _own("law", 128),  # 64 for each of two processes
    "own-law-128-eager": _own("law", 128, compile=False),
    "own-law-8": _own("law", 8),
    "own-causal": _own("causal", 8),
    "own-food": _own("causal", 32, adapter="food"),
    # In float8, and what it is compared with: passes of the same size.
    "own-law-64-float8": _own("law", 64, matmul="float8", micro_batch_tokens=8192),
    "own-law-64-bfloat16": _own("law", 64, micro_batch_tokens=8192),
    "own-law-64-float8-launched": _own(
        "law", 64, matmul="float8", micro_batch_tokens=8192, captured=False
    ),
    "own-law-64-float8-captured": _own(
        "law", 64, matmul="float8", micro_batch_tokens=8192, captured=True
    ),
    # 64 for each of two, four or eight processes.
    "own-law-128-float8": _own("law", 128, matmul="float8", micro_batch_tokens=8192),
    "own-law-256-float8": _own("law", 256, matmul="float8", micro_batch_tokens=8192),
    "own-law-512-float8": _own("law", 512, matmul="float8", micro_batch_tokens=8192),
    "own-law-8-float8": _own("law", 8, matmul="float8"),
    "own-causal-float8": _own("causal", 8, matmul="float8", micro_batch_tokens=8192),
    "own-causal-bfloat16": _own("causal", 8, micro_batch_tokens=8192),
    # One thing left out, or put in, at a time.
    "own-law-64-eager": _own("law", 64, compile=False),
    "own-law-64-4bit": _own("law", 64, dequantize=False),
    "own-law-8-4bit": _own("law", 8, dequantize=False),
    "own-law-8-launched": _own("law", 8, captured=False),
    "own-law-64-eager-paged8": _own("law", 64, compile=False, optim="paged_adamw_8bit"),
    "own-law-64-dropout": _own("law", 64, dropout=0.05),
    "own-law-64-whole-last-layer": _own("law", 64, reads_few=False),
    "own-causal-captured": _own("causal", 8, captured=True),
    # Fitted into the memory that is there, in 4 bits where nothing else fits.
    "own-law-64-auto": _own("law", 64, memory="auto"),
    "own-law-8-auto": _own("law", 8, memory="auto"),
    "own-causal-auto": _own("causal", 8, memory="auto"),
    "own-food-auto": _own("causal", 8, adapter="food", memory="auto"),
    # The peers.
    "recipe": Run("recipe", "law", 8, options={"batch": 2, "accumulation": 4}),
    "trl-packed": Run("trl", "law", 8, options={"packing": True, "batch": 8, "length": 2048}),
    "unsloth-packed": Run(
        "unsloth", "law", 8, options={"packing": True, "batch": 8, "checkpointing": "unsloth"}
    ),
    "unsloth-packed-plain": Run(
        "unsloth", "law", 8, options={"packing": True, "batch": 8, "checkpointing": False}
    ),
    "unsloth-padded-plain": Run(
        "unsloth", "law", 32, options={"packing": False, "batch": 32, "checkpointing": False}
    ),
    "unsloth-padded": Run(
        "unsloth", "law", 32, options={"packing": False, "batch": 32, "checkpointing": "unsloth"}
    ),
    "unsloth-grouped-plain": Run(  # the strongest configuration of Unsloth on legal questions
        "unsloth",
        "law",
        32,
        options={"packing": False, "batch": 32, "checkpointing": False, "grouped": True},
    ),
    "trl-grouped": Run("trl", "law", 32, options={"packing": False, "batch": 32, "grouped": True}),
    "unsloth-packed-small": Run(
        "unsloth", "law", 2, options={"packing": True, "batch": 2, "checkpointing": "unsloth"}
    ),
    "unsloth-causal": Run(
        "unsloth", "causal", 8, options={"packing": False, "batch": 8, "checkpointing": "unsloth"}
    ),
    "unsloth-causal-plain": Run(
        "unsloth", "causal", 8, options={"packing": False, "batch": 8, "checkpointing": False}
    ),
    "unsloth-food": Run(
        "unsloth",
        "causal",
        1,
        "food",
        options={"packing": False, "batch": 1, "checkpointing": "unsloth"},
    ),
    "trl-causal": Run("trl", "causal", 8, options={"packing": False, "batch": 8, "length": 2048}),
}


def find_run(name: str) -> Run:
    """The run of that name; ValueError lists the names."""
    if name not in RUNS:
        raise ValueError(f"there is no run {name}: {', '.join(RUNS)}")
    return replace(RUNS[name])
