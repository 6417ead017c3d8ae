"""What is compiled: the code of a layer, once for training and once for evaluation."""

import torch
from torch._dynamo.utils import counters
from transformers import MistralConfig
from transformers.models.auto import AutoModelForCausalLM

from finetune.model.load import add_lora
from finetune.model.probe import short_losses
from stages.train.fast import low_rank
from stages.train.fast.compiling import compile_layers
from tests.conftest import SIZES
from tests.test_low_rank import LORA


def test_layers_share_their_code_and_none_is_traced_twice(monkeypatch):
    """Tracing a layer takes seconds, and compiling it many more."""
    config = MistralConfig(**SIZES | {"num_hidden_layers": 3})
    base = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    model = add_lora(base, LORA, seed=0)
    low_rank.install(model)
    plain = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda what, **more: plain(what, backend="aot_eager", **more)
    )
    compile_layers(model)
    torch.compiler.reset()
    counters.clear()

    ids = torch.arange(1, 10)[None]
    model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert counters["aot_autograd"] == {"total": 1, "ok": 1}
    short_losses(model)
    assert counters["aot_autograd"] == {"total": 2, "ok": 2}
