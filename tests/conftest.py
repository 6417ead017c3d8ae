"""A tiny base model with a tokenizer of its own, prepared rows, and a folder to run stages in."""

import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests import stage_server
from tests.repository import ROOT, Repository, make_repository

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and the cores may be shared
# A process has one fork server, and the last such call says what is in it: here, for all tests.
multiprocessing.set_forkserver_preload(["tests.preloaded"])
# The same commit tries the same examples; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("explore", settings.default)
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
TEXT = (
    "my landlord kept the deposit and will not answer me can I sue in small claims court "
    "employer fired without notice pay owed contract signed neighbour fence tree police ticket"
)
WORDS = TEXT.split()
# Of a model of random weights that is made where it is needed.
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def question(number: int) -> dict[str, str]:
    """One made-up question and its title; the same for the same number."""
    drawn = random.Random(number)
    body = " ".join(drawn.choices(WORDS, k=drawn.randint(6, 30)))
    return {"body": body + "?", "title": " ".join(drawn.choices(WORDS, k=drawn.randint(2, 6)))}


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of all processes that run tests together."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, which the first process that asks for it makes while others wait."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_weights(shared) -> Path:
    """A random Mistral of 2 layers, 64 wide, with a byte-level tokenizer and a chat template."""
    return make_once(shared / "weights", write_tiny_weights)


def write_tiny_weights(folder: Path) -> None:
    """Write the tiny base model, the same in every process."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator((question(n)["body"] for n in range(40)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=None,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.1,
    )
    MistralForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_base(tiny_weights, tmp_path_factory) -> Path:
    """models/base for the tiny model: its manifest and its small files."""
    from finetune.params import Model
    from stages.fetch.model import write_base

    base = tmp_path_factory.mktemp("models") / "base"
    write_base(Model(**_model(tiny_weights)), tiny_weights, base)
    return base


@pytest.fixture(scope="session")
def tiny_prepared(tiny_base, tmp_path_factory) -> Path:
    """data/prepared: 40 rows to train on, 8 to validate and 8 to test, titles supervised."""
    from finetune.model.load import load_tokenizer
    from finetune.text.tokens import TokenWriter

    tokenizer = load_tokenizer(tiny_base)
    prepared = tmp_path_factory.mktemp("data") / "prepared"
    starts = {"train": 0, "validation": 40, "test": 48}
    for split, count in (("train", 40), ("validation", 8), ("test", 8)):
        with TokenWriter(prepared / split) as writer:
            for number in range(starts[split], starts[split] + count):
                row = question(number)
                prompt = tokenizer("<s>" + row["body"], add_special_tokens=False).input_ids
                answer = tokenizer(row["title"] + "</s>", add_special_tokens=False).input_ids
                spans = [len(prompt), len(prompt) + len(answer)]
                writer.write(f"{number:016x}", "law", prompt + answer, spans)
    _write_texts(prepared / "test", range(48, 56))
    words = {"template": "chat", "system": None, "instruction": "", "template_kwargs": {}}
    asked = {"mode": "completion", "max_length": 256, "words": {"law": words}}
    (prepared / "train/prompt.json").write_text(json.dumps(asked), encoding="utf-8")
    return prepared


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Iterator[Path]:
    """A folder with a python that need not import libraries."""
    with stage_server.serve(tmp_path_factory.mktemp("server")) as folder:
        yield folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory, shared, tiny_weights, programs) -> Repository:
    """A repository of the pipeline that was run once for all modules; a copy of this module's."""
    made = make_once(
        shared / "repository", lambda folder: make_repository(folder, tiny_weights, programs)
    )
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    shutil.copytree(made, folder, symlinks=True)
    return Repository(folder, programs)


@pytest.fixture
def clean(repository) -> Iterator[Repository]:
    """The repository as committed, whatever the test before left."""
    yield repository
    repository.run("git", "reset", "-q", "--hard", "main")
    repository.run("dvc", "checkout", "-q", "--force")


@pytest.fixture(scope="session")
def write_params(tiny_weights) -> Callable[..., None]:
    """A function that writes the params.yaml of a tiny run, with some keys changed."""

    def write(folder: Path, **changes: object) -> None:
        from ruamel.yaml import YAML

        values = YAML(typ="safe").load(ROOT / "presets/law-sample.yaml")
        values["model"] = _model(tiny_weights)
        values["compute"] = {
            "device": "cpu",
            "dtype": "float32",
            "num_threads": 1,
            "matmul": "bfloat16",
        }
        values["train"] |= TINY_TRAIN
        values["preprocess"]["max_length"] = 256
        values["evaluate"]["general_text"] = str(ROOT / "data/sample/general.txt")
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                values[section][name] = value
            else:
                values[section] = value
        YAML().dump(values, folder / "params.yaml")

    return write


TINY_TRAIN = {
    "max_steps": 8,
    "num_train_epochs": None,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "warmup_steps": 2,
    "learning_rate": 0.01,
    "logging_steps": 3,
    "eval_steps": 2,
    "save_steps": 2,
    "save_total_limit": 2,
    "micro_batch_tokens": 384,
}


@pytest.fixture(scope="session")
def furnish(tiny_base, tiny_prepared, write_params) -> Callable[..., Path]:
    """A function that puts params.yaml, models/base and data/prepared into a folder."""

    def make(folder: Path, **changes: object) -> Path:
        for name, target in (("models/base", tiny_base), ("data/prepared", tiny_prepared)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)
        write_params(folder, **changes)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base, write_params, tmp_path_factory) -> Path:
    """models/adapter of the tiny model, trained by chance, with its tokenizer and settings."""
    import torch

    from finetune.checkpoints import seal
    from finetune.model.load import add_lora, load_base, load_tokenizer
    from finetune.params import load
    from finetune.text.prompts import make_words

    models = tmp_path_factory.mktemp("trained")
    write_params(models)
    params = load(models / "params.yaml")
    model = add_lora(load_base(tiny_base, params.quantization, params.compute), params.lora, 0)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    partial, folder = models / ".adapter", models / "adapter"
    model.save_pretrained(partial)
    load_tokenizer(tiny_base).save_pretrained(partial)
    settings = {
        "name": "tiny",
        "base": json.loads((tiny_base / "manifest.json").read_text(encoding="utf-8")),
        "quantization": asdict(params.quantization),
        "compute_dtype": "float32",
        "mode": "completion",
        "words": {"law": asdict(make_words(params.prompt, params.documents["law"]))},
        "max_length": 200,
    }
    (partial / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    seal(partial, folder)
    return folder


@pytest.fixture
def workspace(tmp_path, monkeypatch, furnish) -> Path:
    """A folder to run stages in, and the process in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return furnish(tmp_path)


def _model(weights: Path) -> dict[str, str | None]:
    return {
        "source": "folder",
        "name": "tiny",
        "revision": None,
        "file": None,
        "sha256": None,
        "folder": str(weights),
        "license": "CC0-1.0",
    }


def _write_texts(folder: Path, numbers: range) -> None:
    lines = []
    for number in numbers:
        row = question(number)
        text = {"id": f"{number:016x}", "source": "law"}
        text |= {"question": row["body"], "reference": row["title"]}
        lines.append(json.dumps(text) + "\n")
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
