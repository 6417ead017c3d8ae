"""What runs on a GPU gives what runs on a CPU, one example at a time, in float32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedTokenizerFast

from finetune import generation
from finetune.captured import NotCapturable
from finetune.flat import attention
from finetune.flat.batches import collate_flat, collate_padded, collate_stacked
from finetune.flat.losses import token_nll
from finetune.generation import answer_prompts
from finetune.model.load import add_lora
from finetune.params import Lora
from finetune.text.tokens import Example
from stages.train.fast import low_rank
from stages.train.fast.graphs import Graphs, fill_up
from tests import sessions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

LENGTHS = (9, 2, 170, 64, 65, 300)
SIZES = {
    "vocab_size": 500,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.1,
    "sliding_window": None,
}
LORA = Lora(
    r=8,
    alpha=16,
    dropout=0.0,
    target_modules="all-linear",
    bias="none",
    use_rslora=False,
    exclude_modules=None,
    use_dora=False,
    init_lora_weights="default",
    modules_to_save=None,
)
# Of a gradient, by its norm, in float32; in bfloat16, against what one example at a time gives.
EXACT, WORSE = 1e-4, 1.3


def _rows(lengths=LENGTHS) -> list[Example]:
    torch.manual_seed(1)
    ids = [torch.randint(1, 500, (length,), dtype=torch.int32).numpy() for length in lengths]
    spans = [torch.tensor([len(each) // 2, len(each)], dtype=torch.int32).numpy() for each in ids]
    return [Example(str(at), "law", *pair) for at, pair in enumerate(zip(ids, spans, strict=True))]


def _alone(rows) -> list:
    return [collate_padded([row]) for row in rows]


def _together(how) -> Callable:
    return lambda rows: [how(rows)]


def _model(device="cuda", dtype=torch.float32, compiled=False):
    """A model with an adapter of random weights, always the same, and what is trained of it."""
    attention.register()
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(MistralConfig(**SIZES), attn_implementation="flat")
    model = add_lora(base.to(device, dtype).requires_grad_(False), LORA, seed=0)
    torch.manual_seed(2)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data.copy_(torch.randn(parameter.shape) / 16)
    if compiled:
        low_rank.install(model)
        for layer in base.model.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
    return model, trained


def _gradients(rows, *, device="cuda", cut=_alone, **how):
    """Losses in the order of `rows`, and the adapter's gradients, both float32 on the CPU."""
    model, trained = _model(device, **how)
    losses = torch.cat([token_nll(model, each.to(torch.device(device))) for each in cut(rows)])
    losses.mean().backward()
    return losses.detach().cpu(), {name: p.grad.float().cpu() for name, p in trained.items()}


def _distance(found, expected) -> float:
    """The norm of all differences over that of what is expected: losses and gradients as one."""
    pairs = [(found[0], expected[0]), *((found[1][name], expected[1][name]) for name in found[1])]
    apart = [(a - b).norm() / b.norm() for a, b in pairs]
    return float(torch.stack(apart).norm())


CUTS = {
    "flat": (_together(collate_flat), LENGTHS),
    "padded": (_together(collate_padded), LENGTHS),
    "stacked": (_together(collate_stacked), (128,) * 4),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["launched", "compiled"])
@pytest.mark.parametrize(("cut", "lengths"), CUTS.values(), ids=CUTS.keys())
def test_losses_and_gradients_are_those_of_one_example_at_a_time(cut, lengths, compiled):
    rows = _rows(lengths)
    expected = _gradients(rows, device="cpu")
    assert _distance(_gradients(rows, cut=cut, compiled=compiled), expected) < EXACT
    half = {"dtype": torch.bfloat16, "compiled": compiled}
    rounding = _distance(_gradients(rows, **half), expected)
    assert _distance(_gradients(rows, cut=cut, **half), expected) < WORSE * rounding


def test_captured_passes_give_what_launched_ones_give_and_share_their_memory():
    kept, numbers = 16, 4_000_000
    weight = torch.nn.Parameter(torch.ones(1, device="cuda"))

    def run(batch, scale):
        value = weight * batch.inputs["input_ids"].sum().expand(numbers) / 1000
        for _ in range(kept):
            value = value.sin()  # keeps what it is given
        loss = value.mean() * scale
        loss.backward()
        return loss.detach()

    def launch(batch):
        weight.grad = None
        loss = run(batch.to(weight.device), torch.tensor(0.5, device=weight.device))
        return loss.item(), weight.grad.item()

    batches = [fill_up(collate_flat(_rows(each)), 400) for each in ((100,), (200, 7), (400, 3))]
    expected = [launch(batch) for batch in batches]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    graphs = Graphs(run, [weight], weight.device)
    for batch, each in zip(batches * 3, expected * 3, strict=True):
        graphs.begin_step()
        assert (graphs(batch, 0.5).item(), weight.grad.item()) == pytest.approx(each, rel=1e-6)
    # What is kept once (1.6 times with what passes hold in between), and not again for launching.
    assert torch.cuda.max_memory_reserved() - before < 2 * kept * numbers * 4


@pytest.mark.parametrize("stacked", [False, True], ids=["flat", "stacked"])
def test_captured_passes_of_a_model_give_what_launched_ones_give(stacked):
    model, trained = _model(dtype=torch.bfloat16, compiled=True)

    def run(batch, scale):
        loss = token_nll(model, batch).sum() * scale
        loss.backward()
        return loss.detach()

    device = torch.device("cuda")
    batch = collate_stacked(_rows((128,) * 4)) if stacked else fill_up(collate_flat(_rows()), 300)
    loss = run(batch.to(device), torch.tensor(0.5, device=device)).item()
    expected = {name: parameter.grad.clone() for name, parameter in trained.items()}
    graphs = Graphs(run, list(trained.values()), device)
    for _ in range(3):  # launched, captured, replayed
        graphs.begin_step()
        assert graphs(batch, 0.5).item() == pytest.approx(loss, rel=1e-3)
        for name, parameter in trained.items():
            assert (parameter.grad - expected[name]).norm() < 1e-2 * expected[name].norm(), name


@pytest.mark.parametrize("batch_tokens", [10_000, 700])
def test_captured_steps_of_generation_write_what_launched_ones_write(batch_tokens, monkeypatch):
    model, _ = _model(dtype=torch.float32)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(500)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1")
    prompts = [row.input_ids.tolist() for row in _rows()]
    limits = {"max_new_tokens": 20, "batch_tokens": batch_tokens, "progress": False}
    replayed = answer_prompts(model, tokenizer, prompts, **limits)
    captures = []
    monkeypatch.setattr(generation.Writer, "_replay", lambda *_: captures.append(1))
    assert answer_prompts(model, tokenizer, prompts, **limits) == replayed
    assert captures  # in the first round a graph would have been replayed
    assert len({answer.text for answer in replayed}) == len(prompts)


def test_a_pass_that_waits_for_the_device_is_not_captured():
    weight = torch.nn.Parameter(torch.ones(1, device="cuda"))

    def run(batch, scale):
        loss = (weight * batch.inputs["input_ids"].sum().item() * scale).sum()
        loss.backward()
        return loss.detach()

    graphs = Graphs(run, [weight], weight.device)
    graphs.begin_step()
    graphs(fill_up(collate_flat(_rows()), 300), 0.5)
    with pytest.raises(NotCapturable, match="synchroniz"):
        graphs(fill_up(collate_flat(_rows()), 300), 0.5)


@pytest.fixture(scope="module")
def run_stage(furnish):
    """A function that runs the train stage in a folder, on the GPU, and returns its losses."""

    def run(folder: Path, at: str = "", **changes: object) -> dict[int, float]:
        changes = {
            "compute__device": "cuda",
            "compute__dtype": "bfloat16",
            "quantization__dequantize": True,
            "train__logging_steps": 1,
        } | changes
        if not (folder / "params.yaml").exists():
            furnish(folder, **changes)
        code, log = sessions.train(folder, at=at)
        if at:
            return {}
        assert code == 0, log
        return sessions.read_losses(folder)

    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory, run_stage) -> dict[int, float]:
    """The losses of a run with nothing changed."""
    return run_stage(tmp_path_factory.mktemp("plain"))


CHANGES = {
    "compiled, and captured where that pays": {"train__compile": True},
    "with weights in 4 bits": {"quantization__dequantize": False},
    "with activations recomputed": {"train__gradient_checkpointing": True},
    "captured with activations recomputed": {
        "train__compile": True,
        "train__gradient_checkpointing": True,
    },
    "with memory fitted": {"train__memory": "auto"},
    "in larger passes": {"train__micro_batch_tokens": 1000},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_what_makes_a_run_fast_or_small_does_not_change_its_losses(
    tmp_path, run_stage, plain, changes
):
    assert run_stage(tmp_path, **changes) == pytest.approx(plain, rel=2e-2)


def test_a_killed_run_continues_as_if_it_had_not_been(tmp_path, run_stage):
    changes = {"train__compile": True, "lora__dropout": 0.1}
    expected = run_stage(tmp_path / "whole", **changes)
    killed = tmp_path / "killed"
    run_stage(killed, at="SIGKILL write_adapter 3", **changes)
    found = run_stage(killed)
    assert "continuing from" in (killed / "log.txt").read_text(encoding="utf-8")
    assert found == pytest.approx(expected, rel=2e-2)
