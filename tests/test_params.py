"""params.yaml and every preset load; every mistake is reported, all at once, with its remedy."""

import copy
import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from finetune.params import load

PRESETS = sorted(Path("presets").glob("*.yaml"))


@pytest.fixture
def values() -> dict:
    return YAML(typ="safe").load(Path("presets/law-sample.yaml"))


@pytest.fixture
def problems(tmp_path, values):
    """A function that changes keys of params.yaml and gives the error text."""

    def change(changes: dict[str, object], removed: tuple[str, ...] = ()) -> str:
        changed = copy.deepcopy(values)
        for key, value in changes.items():
            *parents, last = key.split(".")
            section = changed
            for parent in parents:
                section = section[parent]
            section[last] = value
        for key in removed:
            *parents, last = key.split(".")
            section = changed
            for parent in parents:
                section = section[parent]
            del section[last]
        path = tmp_path / "params.yaml"
        YAML().dump(changed, path)
        with pytest.raises(ValueError) as error:
            load(path)
        return str(error.value)

    return change


@pytest.mark.parametrize("path", [Path("params.yaml"), *PRESETS], ids=str)
def test_the_file_loads(path):
    load(path)


def test_every_preset_has_the_keys_of_params_yaml(values):
    free = {"data", "documents", "mixture", "selectors"}  # keyed by the names of the sources

    def keys(value: object, prefix: str = "") -> set[str]:
        if not isinstance(value, dict) or prefix.rpartition(".")[2] in free:
            return {prefix}
        return {key for name, each in value.items() for key in keys(each, f"{prefix}.{name}")}

    for preset in PRESETS:
        assert keys(YAML(typ="safe").load(preset)) == keys(values), preset


@pytest.mark.parametrize("path", [Path("params.yaml"), *PRESETS], ids=str)
def test_the_file_is_in_the_form_that_exp_run_writes(path):
    """Then `dvc exp run -S` changes one line and not the layout."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(yaml.load(path), text)
    assert text.getvalue() == path.read_text(encoding="utf-8")


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        Path("presets/law-sample.yaml")
        .read_text(encoding="utf-8")
        .replace("learning_rate: 0.002", "learning_rate: 1e-05"),
        encoding="utf-8",
    )
    assert load(path).train.learning_rate == 1e-5


def test_all_mistakes_are_reported_at_once(problems):
    text = problems(
        {"lora.rank": 4, "train.learning_rate": "fast", "seed": -1}, removed=("lora.r",)
    )
    assert "lora.rank is not a key" in text
    assert "train.learning_rate is 'fast'" in text
    assert "seed is -1" in text
    assert "lora.r is missing" in text


def test_a_misspelt_key_is_answered_with_the_right_one(problems):
    assert "did you mean learning_rate" in problems({"train.learning_rat": 1e-4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.warmup_steps": 400}, "train.warmup_steps is 400, not below max_steps"),
        ({"train.num_train_epochs": 1}, "set exactly one"),
        ({"train.num_train_epochs": float("inf")}, "train.num_train_epochs is inf"),
        ({"train.max_steps": None}, "set exactly one"),
        ({"train.eval_steps": 1000}, "the run would never be evaluated"),
        ({"train.save_steps": 7}, "must be a multiple of the other"),
        ({"train.max_steps": 20.5}, "train.max_steps is 20.5"),
        ({"train.resume_from": "a", "train.init_adapter": "b"}, "set at most one"),
        (
            {"train.micro_batch_tokens": 10},
            "train.micro_batch_tokens is 10, below preprocess.max_length",
        ),
        ({"evaluate.micro_batch_tokens": 10}, "evaluate.micro_batch_tokens is 10"),
        ({"train.compile": True}, "compute.device is cpu"),
        ({"evaluate.checkpoint": "newest"}, "evaluate.checkpoint is 'newest'"),
        ({"lora.r": 0}, "lora.r is 0"),
        ({"lora.alpha": float("inf")}, "lora.alpha is inf"),
        ({"lora.alpha": float("nan")}, "lora.alpha is nan"),
        ({"lora.target_modules": []}, "lora.target_modules is []: write all-linear"),
        (
            {"export.kinds": ["gguf-adapter"], "lora.bias": "all"},
            "gguf-adapter, which cannot hold lora.use_dora False or lora.bias all",
        ),
        ({"lora.dropout": 1.0}, "lora.dropout is 1.0"),
        ({"seed": True}, "seed is True"),
        ({"model.source": "hub"}, "a hub model needs a 40-digit commit"),
        ({"model.sha256": None}, "model.sha256 must be set"),
        ({"model.sha256": "abc"}, "model.sha256 is 'abc'"),
        ({"mixture": {"other": 1.0}}, "mixture has other"),
        ({"mixture.law": 0.0}, "at least one share must be above 0"),
        ({"mixture.law": -1.0}, "mixture.law is -1.0"),
        ({"documents": {}}, "law is missing in documents"),
        ({"documents.law": {"text": "{body}"}}, "preprocess.mode completion wants answer, prompt"),
        ({"documents.law.steps": [3]}, "documents.law.steps.0 is 3: input should be an object"),
        ({"preprocess.validation_share": 0.9}, "leave nothing to train on"),
        ({"preprocess.selectors": {"web": {"title": "h1"}}}, "there is no source of that name"),
        ({"data.files": {}}, "data has no source"),
        ({"launch.command": "accelerate launch --config_file x.yaml"}, "launch.config is"),
        ({"launch.config": "presets/launch/fsdp.yaml"}, "train.optim is paged_adamw_8bit"),
    ],
    ids=str,
)
def test_a_wrong_or_contradictory_value_is_named(problems, changes, message):
    assert message in problems(changes)


def test_a_missing_file_and_broken_yaml_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid YAML"):
        load(tmp_path / "broken.yaml")


@pytest.mark.parametrize("path", sorted(Path("presets/launch").glob("*.yaml")), ids=str)
def test_accelerate_reads_every_launcher_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).mixed_precision in (None, "no")


def test_fsdp_is_taken_with_what_its_configuration_asks_for(tmp_path, values):
    values["launch"]["config"] = "presets/launch/fsdp.yaml"
    values["train"]["optim"] = "adamw_torch_fused"
    values["quantization"] |= {"storage": "float32", "dequantize": False}
    YAML().dump(values, tmp_path / "params.yaml")
    load(tmp_path / "params.yaml")
