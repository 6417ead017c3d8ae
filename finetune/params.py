"""The schema of params.yaml. No defaults live here: params.yaml holds every value.

`load(path)` reads a file and returns one frozen `Params`, or raises one `ValueError` that lists
everything wrong with it.
"""

import ast
import difflib
import json
import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

# Schedules of transformers that have no warm-up, and ignore one in silence.
NO_WARMUP = ("constant", "greedy", "reduce_lr_on_plateau")

section = dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy's bound
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Split = Literal["all", "train", "validation", "test"]
Personal = Literal["keep", "mask", "drop"]
StepOptions = Annotated[dict[Text, dict[str, Any]], Field(min_length=1, max_length=1)]


@section
class Launch:
    """How `train` is started: the command, and the configuration file that it names."""

    command: Text
    config: Text


@section
class Model:
    """The base model, pinned by content."""

    source: Literal["pypi", "hub", "folder"]
    name: Text
    revision: str | None
    file: str | None
    sha256: Sha256 | None
    folder: Text
    license: Text


@section
class Files:
    """Files on this machine: one file, or the files under a folder by split and pattern.

    `encoding` is that of its text where it is not UTF-8.
    """

    path: Text
    files: dict[Split, Text]
    license: Text
    evidence: Text
    encoding: Text | None = None


@section
class Urls:
    """Remote files, read through fsspec: split -> address, and split -> sha256."""

    files: dict[Split, Text]
    sha256: dict[Split, Sha256]
    license: Text
    evidence: Text
    encoding: Text | None = None


@section
class Hub:
    """A Hugging Face dataset at a pinned commit.

    Either `files`, split -> pattern in the repository, or what the dataset itself defines: `config`
    and `splits`, split -> its split of that configuration.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Commit
    files: dict[Split, Text]
    columns: list[str]
    filter: dict[str, str]
    max_rows: Positive | None
    license: Text
    evidence: Text
    encoding: Text | None = None
    config: Text | None = None
    splits: dict[Split, Text] = field(default_factory=dict)


@section
class Web:
    """A polite crawl. `declared_license` is for sites whose pages carry none.

    A page that was fetched within `revisit_days` is not asked for again.
    """

    start_urls: list[Text]
    sitemaps: list[Text]
    allowed_paths: list[Text]
    max_depth: Count
    max_pages: Positive
    max_page_bytes: Positive
    delay: NonNegative
    timeout: Finite
    revisit_days: NonNegative
    contact: Text
    allowed_licenses: list[Text]
    declared_license: str | None
    evidence: str | None


@section
class Data:
    """The sources, by kind. Names are unique over all kinds."""

    files: dict[Name, Files]
    urls: dict[Name, Urls]
    hub: dict[Name, Hub]
    web: dict[Name, Web]

    def names(self) -> list[str]:
        """All source names, sorted."""
        return sorted([*self.files, *self.urls, *self.hub, *self.web])


@section
class Document:
    """How a row of a source becomes a document. What is left out is off.

    Templates name columns in braces: `prompt` and `answer`, or `text`, or `messages`, by the mode.
    `system` and `instruction` are the words around this source's questions. `identity` names the
    columns that say which row it is (default: those of the templates), `group` what keeps rows in
    one split, `label` what results are told apart by, `cut` the column that is shortened where a
    document is too long. `steps` are dotted names of functions of the user's own and of filters,
    each alone or with its options.
    """

    prompt: Text | None = None
    answer: Text | None = None
    text: Text | None = None
    messages: Text | None = None
    system: str | None = None
    instruction: str | None = None
    identity: list[Text] | None = None
    group: Text | None = None
    label: Text | None = None
    cut: Text | None = None
    normalise: Literal["text", "code", "none"] = "text"
    steps: list[Text | StepOptions] = field(default_factory=list)

    def named_steps(self) -> list[tuple[str, dict[str, Any]]]:
        """The dotted name of each step, and its options."""
        pairs = ({step: {}} if isinstance(step, str) else step for step in self.steps)
        return [pair for each in pairs for pair in each.items()]

    def templates(self) -> dict[str, str]:
        """The templates that are there, by name."""
        names = ("prompt", "answer", "text", "messages")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@section
class Prompt:
    """How the words around a question are written; the words are those of its source.

    `template_kwargs` are handed to the chat template, such as `enable_thinking: false`.
    """

    template: Literal["chat", "plain"]
    template_kwargs: dict[str, Any]


@section
class Preprocess:
    """From rows to tokens."""

    mode: Literal["completion", "causal", "chat"]
    max_length: Annotated[int, Field(ge=8)]
    min_characters: Count
    max_characters: Positive
    max_truncated_share: Share
    validation_share: Share
    test_share: Share
    near_duplicates: bool
    duplicate_similarity: Annotated[float, Field(gt=0, le=1)]
    max_leak_share: Share
    leak_files: list[Text]
    emails: Personal
    phones: Personal
    phone_regions: list[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]]
    cards: Personal
    keys: Personal
    mixture_unit: Literal["tokens", "documents"]
    mixture_total: Positive | None
    mixture_repeat: bool
    selectors: dict[Name, dict[str, Text]]
    ibans: Personal
    national_ids: Personal
    ips: Personal
    max_rejected_share: Share
    max_uses: Positive | None


@section
class Quantization:
    """How the frozen base weights are stored (QLoRA, arXiv:2305.14314).

    `dequantize` unpacks the 4-bit weights once, after loading, instead of at every use: the same
    numbers in less time, in the memory of the unquantised model.
    """

    type: Literal["nf4", "fp4"]
    double_quantization: bool
    storage: Literal["uint8", "float32", "bfloat16"]
    dequantize: bool


@section
class Compute:
    """Where and in which precision the model runs.

    `matmul` is the type of the products with frozen weights in training; all else, evaluation
    included, is in `dtype`.
    """

    device: Literal["cpu", "cuda", "auto"]
    dtype: Literal["float32", "bfloat16", "auto"]
    num_threads: Positive | None
    matmul: Literal["bfloat16", "float8"]


@section
class Lora:
    """The adapter (arXiv:2106.09685), by peft's names.

    `target_modules` is all-linear, a list of names, or a regular expression for whole names; so is
    `exclude_modules`. No initialisation that changes the base's weights (PiSSA, OLoRA, LoftQ): the
    base is stored in 4 bits, and the adapter would be one of a base that nobody else has.
    `modules_to_save` names the embedding or the head, which are then trained whole.
    """

    r: Positive
    alpha: Finite
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Text | list[Text]
    bias: Literal["none", "all", "lora_only"]
    use_rslora: bool
    exclude_modules: Text | list[Text] | None
    use_dora: bool
    init_lora_weights: Literal["default", "gaussian", "orthogonal"]
    modules_to_save: Annotated[list[Text], Field(min_length=1)] | None


@section
class Train:
    """The optimisation, by Trainer's names, and how it fits into memory."""

    max_steps: Positive | None
    num_train_epochs: Finite | None
    per_device_train_batch_size: Positive
    gradient_accumulation_steps: Positive
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    lr_scheduler_type: Text
    warmup_steps: Count
    weight_decay: NonNegative
    max_grad_norm: NonNegative
    optim: Text
    logging_steps: Positive
    eval_steps: Positive
    save_steps: Positive
    save_total_limit: Positive
    early_stopping_patience: Positive | None
    memory: Literal["fixed", "auto"]
    micro_batch_tokens: Positive
    gradient_checkpointing: bool
    compile: bool
    resume_from: str | None
    init_adapter: str | None
    report_to: list[Literal["tensorboard", "wandb"]]
    keep_unfinished: Count
    resume_accept: list[Text]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    lr_scheduler_kwargs: dict[str, Any]
    adam_beta1: Annotated[float, Field(ge=0, lt=1)]
    adam_beta2: Annotated[float, Field(ge=0, lt=1)]
    adam_epsilon: Annotated[float, Field(gt=0, lt=1)]
    metric_for_best_model: Annotated[str, StringConstraints(pattern=r"^eval_loss(_[\w-]+)?$")]


@section
class Evaluate:
    """What is scored, and how; `gate` holds the conditions under which the result may ship."""

    checkpoint: Annotated[str, StringConstraints(pattern=r"^(best|last|step-[1-9]\d*)$")]
    max_rows: Positive | None
    max_new_tokens: Positive
    micro_batch_tokens: Positive
    bootstrap_samples: Positive
    metrics: list[Text]
    general_text: Text
    gate: list[Text]


@section
class Export:
    """Other forms of the trained model, and how much worse than the adapter one may be."""

    kinds: list[Literal["adapter", "merged", "gguf", "gguf-adapter"]]
    max_loss_gap: Annotated[float, Field(ge=0)]


@section
class Params:
    """All of params.yaml."""

    name: Name
    seed: Seed
    launch: Launch
    model: Model
    data: Data
    documents: dict[Name, Document]
    prompt: Prompt
    preprocess: Preprocess
    mixture: dict[Name, NonNegative]
    quantization: Quantization
    compute: Compute
    lora: Lora
    train: Train
    evaluate: Evaluate
    export: Export


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    YAML 1.2 (ruamel), as DVC reads it: `1e-05`, which `dvc exp run -S` writes, is a float.
    Raises ValueError with every unknown, missing, ill-typed or contradictory key at once.
    """
    try:
        values = YAML(typ="safe").load(Path(path))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run from the root of the repository") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    try:
        # Strict mode takes a mapping for a dataclass from JSON only.
        params = TypeAdapter(Params).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = [_describe(each, values) for each in error.errors()]
    else:
        problems = contradictions(params)
    if problems:
        raise ValueError(f"{path} has {len(problems)} problem(s):\n" + "\n".join(problems))
    return params


def contradictions(params: Params) -> list[str]:
    """What is wrong with values that are each valid alone; one line each."""
    return [
        f"  {message}"
        for check in (
            _model,
            _sources,
            _documents,
            _mixture,
            _preprocess,
            _lora,
            _steps,
            _memory,
            _launch,
            _gate,
        )
        for message in check(params)
    ]


def _describe(error: dict[str, Any], values: Any) -> str:
    """One pydantic error as `key is value: what is allowed`."""
    kinds = ("literal[", "list[", "dict[", "constrained-str")  # of a union, which pydantic names
    parts = [str(part) for part in error["loc"] if not str(part).startswith(kinds)]
    key = ".".join(parts) or "the file"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"  {key} is not a key here{_suggestion(parts, values)}"
    if error["type"] in ("missing", "missing_argument"):
        return (
            f"  {key} is missing; write `{parts[-1]}:` with nothing behind it where it may be null"
        )
    return f"  {key} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _suggestion(parts: list[str], values: Any) -> str:
    """`; did you mean r?` where a known key of that section is close."""
    fields = {name for kind in _sections() for name in kind.__dataclass_fields__}
    present = values if len(parts) == 1 else {}
    close = difflib.get_close_matches(parts[-1], fields - set(present), n=1)
    return f"; did you mean {close[0]}?" if close else "; remove it"


def _sections() -> list[type]:
    """Every dataclass of the schema."""
    return [each for each in globals().values() if hasattr(each, "__dataclass_fields__")]


def _model(params: Params) -> list[str]:
    model, found = params.model, []
    if model.source == "hub" and not _is_commit(model.revision):
        found.append(
            f"model.revision is {model.revision!r}: a hub model needs a 40-digit commit, "
            "because a branch or tag can move"
        )
    if model.source == "pypi" and not (model.revision and model.file and model.sha256):
        found.append(
            "model.source is pypi: model.revision, model.file and model.sha256 must be set"
        )
    return found


def _is_commit(revision: str | None) -> bool:
    return bool(revision) and len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _sources(params: Params) -> list[str]:
    data, found = params.data, []
    kinds = (data.files, data.urls, data.hub, data.web)
    names = [name for kind in kinds for name in kind]
    if not names:
        found.append("data has no source: give at least one under files, urls, hub or web")
    found += [
        f"data names {name} twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for name, urls in data.urls.items():
        if urls.files.keys() != urls.sha256.keys():
            found.append(
                f"data.urls.{name}.sha256 must have one hash for each of files: "
                f"{', '.join(urls.files)}"
            )
    for kind, sources in (("files", data.files), ("urls", data.urls), ("hub", data.hub)):
        for name, source in sources.items():
            named = source.files or getattr(source, "splits", {})
            if "all" in named and len(named) > 1:
                found.append(
                    f"data.{kind}.{name} has `all` beside other splits: "
                    "either the source has splits of its own or it has none"
                )
            if kind == "urls" and not source.files:
                found.append(f"data.urls.{name}.files is empty: name at least one")
            if kind == "hub" and bool(source.files) == bool(source.splits):
                found.append(
                    f"data.hub.{name}: set exactly one of files (patterns in the repository) and "
                    "splits (those that the dataset defines)"
                )
            if kind == "hub" and source.config and source.files:
                found.append(f"data.hub.{name}.config is for splits, not for files")
            if source.encoding and not _is_encoding(source.encoding):
                found.append(f"data.{kind}.{name}.encoding is {source.encoding!r}: Python has none")
    for name, web in data.web.items():
        if web.declared_license and not web.evidence:
            found.append(
                f"data.web.{name}.declared_license is {web.declared_license!r} without "
                "evidence: give the address of the page that says so"
            )
    return found


def _is_encoding(name: str) -> bool:
    try:
        return b"".decode(name) == ""
    except LookupError:
        return False


_COLUMNS = {"completion": {"prompt", "answer"}, "causal": {"text"}, "chat": {"messages"}}


def _documents(params: Params) -> list[str]:
    found, wanted = [], _COLUMNS[params.preprocess.mode]
    for name in sorted(set(params.data.names()) ^ set(params.documents)):
        side = "data" if name in params.documents else "documents"
        found.append(f"{name} is missing in {side}: every source needs an entry in both")
    for name, document in params.documents.items():
        if set(document.templates()) != wanted:
            found.append(
                f"documents.{name} has {', '.join(sorted(document.templates())) or 'no template'}: "
                f"preprocess.mode {params.preprocess.mode} wants {', '.join(sorted(wanted))}"
            )
    found += [
        f"preprocess.selectors.{name}: there is no source of that name"
        for name in params.preprocess.selectors
        if name not in params.data.names()
    ]
    return found


def _mixture(params: Params) -> list[str]:
    found = []
    if set(params.mixture) != set(params.data.names()):
        found.append(
            f"mixture has {', '.join(sorted(params.mixture)) or 'nothing'}: it needs a share "
            f"for each source: {', '.join(params.data.names())}"
        )
    elif sum(params.mixture.values()) <= 0:
        found.append("mixture: at least one share must be above 0")
    return found


def _preprocess(params: Params) -> list[str]:
    each, found = params.preprocess, []
    if each.validation_share + each.test_share >= 1:
        found.append(
            f"preprocess.validation_share {each.validation_share} + test_share "
            f"{each.test_share} leave nothing to train on"
        )
    if each.min_characters > each.max_characters:
        found.append(
            f"preprocess.min_characters {each.min_characters} is above max_characters "
            f"{each.max_characters}"
        )
    return found


def _lora(params: Params) -> list[str]:
    lora, found = params.lora, []
    for name in ("target_modules", "exclude_modules"):
        value = getattr(lora, name)
        if not isinstance(value, str) or value == "all-linear":
            continue
        try:
            re.compile(value)
        except re.error as error:
            found.append(f"lora.{name} is {value!r}, which is no regular expression: {error}")
        if value.isidentifier():
            found.append(
                f"lora.{name} is {value!r}: write [{value}], or an expression for whole names"
            )
    if lora.target_modules == []:
        found.append("lora.target_modules is []: write all-linear, or name modules")
    if lora.init_lora_weights == "orthogonal" and lora.r % 2:
        found.append(f"lora.r is {lora.r}: init_lora_weights orthogonal needs an even one")
    if lora.modules_to_save and "gguf-adapter" in params.export.kinds:
        found.append(
            f"export.kinds has gguf-adapter, which cannot hold lora.modules_to_save "
            f"{lora.modules_to_save}: export gguf or merged"
        )
    if "gguf-adapter" in params.export.kinds and (lora.use_dora or lora.bias != "none"):
        found.append(
            f"export.kinds has gguf-adapter, which cannot hold lora.use_dora {lora.use_dora} or "
            f"lora.bias {lora.bias}: export gguf or merged"
        )
    return found


def _steps(params: Params) -> list[str]:
    train, found = params.train, []
    if (train.max_steps is None) == (train.num_train_epochs is None):
        found.append(
            "train.max_steps and train.num_train_epochs: set exactly one, leave the other empty"
        )
    if train.max_steps is not None and train.warmup_steps >= train.max_steps:
        found.append(
            f"train.warmup_steps is {train.warmup_steps}, not below max_steps {train.max_steps}: "
            "the learning rate would never be reached"
        )
    if train.max_steps is not None and train.eval_steps > train.max_steps:
        found.append(
            f"train.eval_steps is {train.eval_steps}, above max_steps {train.max_steps}: "
            "the run would never be evaluated"
        )
    if train.save_steps % train.eval_steps and train.eval_steps % train.save_steps:
        found.append(
            f"train.save_steps {train.save_steps} and eval_steps {train.eval_steps}: one must "
            "be a multiple of the other, so that the best evaluation has a checkpoint"
        )
    if train.resume_from and train.init_adapter:
        found.append("train.resume_from and train.init_adapter: set at most one")
    if train.warmup_steps and train.warmup_ratio:
        found.append("train.warmup_steps and train.warmup_ratio: leave at least one at 0")
    for name in ("warmup_steps", "warmup_ratio"):
        if getattr(train, name) and train.lr_scheduler_type in NO_WARMUP:
            other = ", or write constant_with_warmup" * (train.lr_scheduler_type == "constant")
            found.append(
                f"train.lr_scheduler_type is {train.lr_scheduler_type}, which ignores train.{name} "
                f"{getattr(train, name)}: set that to 0{other}"
            )
    if train.resume_accept and not train.resume_from:
        found.append("train.resume_accept is of a checkpoint: name it in train.resume_from")
    return found


def _memory(params: Params) -> list[str]:
    train, found = params.train, []
    for name, budget in (
        ("train", train.micro_batch_tokens),
        ("evaluate", params.evaluate.micro_batch_tokens),
    ):
        if budget < params.preprocess.max_length:
            found.append(
                f"{name}.micro_batch_tokens is {budget}, below preprocess.max_length "
                f"{params.preprocess.max_length}: the longest example would not fit"
            )
    if params.compute.device == "cpu" and train.compile:
        found.append("compute.device is cpu: train.compile must be false")
    return found


def _launch(params: Params) -> list[str]:
    launch, found = params.launch, []
    words = launch.command.split()
    if "--config_file" in words and launch.config not in words:
        found.append(
            f"launch.config is {launch.config}, but launch.command names another file: "
            f"{launch.command}"
        )
    if "fsdp" in Path(launch.config).stem:
        if params.train.optim.startswith("paged") or "8bit" in params.train.optim:
            found.append(
                f"train.optim is {params.train.optim}: under FSDP it fails at the first "
                "checkpoint; use adamw_torch_fused"
            )
        if params.quantization.storage != params.compute.dtype:
            found.append(
                f"quantization.storage is {params.quantization.storage}: under FSDP it must "
                f"equal compute.dtype {params.compute.dtype}"
            )
        if params.compute.matmul == "float8":
            found.append(
                "compute.matmul is float8: FSDP shards the 4-bit weights; set it to bfloat16"
            )
        if params.quantization.dequantize:
            found.append(
                "quantization.dequantize is true: FSDP shards the 4-bit weights; set it false"
            )
        if params.lora.modules_to_save:
            found.append(
                f"lora.modules_to_save is {params.lora.modules_to_save}: not trained under FSDP "
                "here; leave it empty, or launch with ddp.yaml"
            )
    return found


def _gate(params: Params) -> list[str]:
    """What is no comparison; whether its metrics exist is known when they are there."""
    return [
        f"evaluate.gate has {condition!r}: write one comparison, as loss <= 0.98 * base.loss"
        for condition in params.evaluate.gate
        if not _is_comparison(condition)
    ]


def _is_comparison(condition: str) -> bool:
    try:
        node = ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(node, ast.Compare) and len(node.ops) == 1
