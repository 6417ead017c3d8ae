"""What it was made of and how: base, data, recipe, cost, and where each figure is from."""

from tools.card.markdown import show, table
from tools.record import ADAPTER, LOCK, METRICS, Record, escape

DATA, TRAIN = METRICS[:2]
LOADERS = {
    "adapter": ("peft", "AutoPeftModelForCausalLM"),
    "merged": ("transformers", "AutoModelForCausalLM"),
}
COMMANDS = {
    "gguf": "llama-server -m model.gguf",
    "gguf-adapter": "llama-server -m base.gguf --lora adapter.gguf",
}
COST, BASE = "metrics/cost.json", "models/base/manifest.json"


def heading(record: Record, kind: str) -> str:
    """Name, base and its licence."""
    model = {key: record.value(BASE, f"/model/{key}") for key in ("name", "revision", "license")}
    base = " ".join(filter(None, (model["name"], model["revision"])))
    what = {
        "adapter": "A LoRA adapter for",
        "merged": "A LoRA adapter merged, in 16 bits, into",
        "gguf": "A LoRA adapter merged, as GGUF, into",
        "gguf-adapter": "A LoRA adapter, as GGUF, for",
    }[kind]
    quantised = record.param("train", "quantization/type")
    return (
        f"# {record.param('train', 'name')}\n\n{what} {base} (licence: {model['license']}), "
        f"trained on the base model in 4 bits ({quantised})."
    )


def data(record: Record) -> str:
    """Sources with licences and shares, the splits, and what was left out."""
    unit, found = record.param("preprocess", "preprocess/mixture_unit"), []
    own = record.licenses()
    for source in record.sources():
        share = record.value(DATA, f"/shares/{source.name}/achieved")
        used = own.get(source.name, {}).get("train", {})
        each = ", ".join(f"{name} {count:,}" for name, count in used.items()) or "none"
        found.append([source.name, source.place, source.license, source.evidence, each,
                      show(share)])  # fmt: skip
    head = ["source", "what", "licence", "evidence", "licences of its training documents", "share"]
    counts = ("documents", "rows", "tokens", "supervised")
    splits = [
        [split, *(show(record.value(DATA, f"/{split}/{key}")) for key in counts)]
        for split in ("train", "validation", "test")
    ]
    read, leak = (show(record.value(DATA, f"/{key}")) for key in ("read", "leak"))
    left_out = [
        f"{name} {why.replace('_', ' ')} "
        f"{show(record.value(DATA, f'/dropped/{name}/{escape(why)}'))}"
        for name, reasons in sorted(record.json(DATA)["dropped"].items())
        for why in sorted(reasons)
    ]
    return "\n\n".join(
        [
            "## Data",
            table(head, found),
            f"Shares are of training, in {unit}.",
            table(["split", "documents", "examples", "tokens", "learned or scored"], splits),
            f"{read} rows were read; left out: {', '.join(left_out) or 'none'}. Share of training "
            f"documents that resemble evaluation documents: {leak}.",
        ]
    )


def how_it_was_made(record: Record) -> str:
    """Recipe, hardware, cost and versions."""
    targets = record.param("train", "lora/target_modules")
    targets = targets if isinstance(targets, str) else ", ".join(targets)
    if whole := record.param("train", "lora/modules_to_save"):
        targets += f"; trained whole: {', '.join(whole)}"
    lora = {key: record.param("train", f"lora/{key}") for key in ("r", "alpha", "dropout")}
    train = {key: record.param("train", f"train/{key}") for key in
             ("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
              "lr_scheduler_type", "optim")}  # fmt: skip
    did = {key: record.value(TRAIN, f"/{key}") for key in
           ("global_step", "best_step", "epochs", "tokens", "trainable", "eval_loss_first",
            "eval_loss")}  # fmt: skip
    checkpoint = record.param("evaluate", "evaluate/checkpoint")
    rows = [
        ["LoRA", f"rank {lora['r']}, alpha {show(lora['alpha'])}, dropout "
                 f"{show(lora['dropout'])}, on {targets}"],
        ["trained values", show(did["trainable"])],
        ["steps", f"{did['global_step']}, the best by evaluation loss {did['best_step']}; scored: "
                  f"{checkpoint}"],
        ["examples in a step", f"{train['per_device_train_batch_size']} x "
                               f"{train['gradient_accumulation_steps']} for each process"],
        ["learning rate", f"{show(train['learning_rate'])}, {train['lr_scheduler_type']}"],
        ["optimizer", train["optim"]],
        ["passes over the data", f"{did['epochs']} ({show(did['tokens'])} tokens)"],
        ["loss on the validation rows", f"{did['eval_loss_first']} before, {did['eval_loss']} "
                                        "after"],
        *_continued(record),
        ["seed", str(record.param("train", "seed"))],
    ]  # fmt: skip
    rows += _cost(record)
    return "## How it was made\n\n" + table(["", ""], rows)


def _continued(record: Record) -> list[list[str]]:
    """What the adapter's small card says of the run that this one went on from."""
    small = record.root / ADAPTER / "README.md"
    lines = small.read_text(encoding="utf-8").splitlines() if small.exists() else []
    return [line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| continued")]


def _cost(record: Record) -> list[list[str]]:
    """What the run took, where this machine knows it."""
    cost = record.json(COST)
    if cost.get("reason") or cost["fingerprint"] != record.value(TRAIN, "/fingerprint"):
        why = cost.get("reason", "metrics/cost.json is of another run")
        return [["hardware and cost", why]]
    value = {key: record.value(COST, f"/{key}") for key in
             ("hardware", "processes", "duration_s", "tokens_per_s", "peak_memory_gb")}  # fmt: skip
    versions = ", ".join(
        f"{name} {record.value(COST, f'/versions/{name}')}" for name in sorted(cost["versions"])
    )
    return [
        ["hardware", f"{value['hardware']}; {value['processes']} process(es)"],
        ["duration of training", f"{show(value['duration_s'])} s"],
        ["speed", f"{show(value['tokens_per_s'])} tokens a second"],
        ["peak memory", f"{value['peak_memory_gb']} GB"],
        ["versions", versions],
    ]


def usage(record: Record, kind: str) -> str:
    """How the exported form is loaded, and in which words it was trained to be asked."""
    found = ["## Use"]
    if kind in COMMANDS:
        found.append(f"    {COMMANDS[kind]}")
    else:
        module, name = LOADERS[kind]
        found.append(
            f"```python\nfrom {module} import {name}\n\n"
            f'model = {name}.from_pretrained("this folder or repository")\n```'
        )
    words = [
        [source.name, *(_words(record, source.name, key) for key in ("system", "instruction"))]
        for source in record.sources()
    ]
    if any(cell for row in words for cell in row[1:]):
        template = record.param("preprocess", "prompt/template")
        found.append(
            f"It was trained to be asked in these words (template: {template}), the question a "
            "paragraph of its own behind the instruction:"
        )
        found.append(table(["source", "system", "instruction"], words))
    return "\n\n".join(found)


def _words(record: Record, source: str, key: str) -> str:
    return record.param("preprocess", f"documents/{source}/{key}") or ""


def sources(record: Record) -> str:
    """Each figure's file and JSON pointer, and the hash of each file in dvc.lock."""
    hashes = [[f"`{path}`", record.outs[path]] for path in (*METRICS, ADAPTER)]
    cited = [
        [f"`{path}`", f"`{pointer}`", show(value)]
        for (path, pointer), value in sorted(record.cited.items())
        if not isinstance(value, dict)
    ]
    return "\n\n".join(
        [
            "## Where each figure is from",
            f"The run is that of `{LOCK}` with these outputs:",
            table(["path", "md5"], hashes),
            "<details><summary>Every figure, with its file and the JSON pointer into it</summary>",
            table(["file", "pointer", "value"], cited),
            "</details>",
        ]
    )
