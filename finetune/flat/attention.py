"""Attention over flat batches: several examples one behind the other, without padding.

Registered with transformers under the name `flat`. A call that carries `cu_seq_lens_q` attends
within each example only; any other call (generation, padded batches) is transformers' own sdpa.
"""

import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "flat"
_VARLEN_OPTIONS = inspect.signature(varlen_attn).parameters
# cuDNN's is twice as fast as flash 2 on Hopper; each is skipped where it does not apply.
_FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_LARGEST_VARLEN_HEAD = 256  # of the flash kernels
_PLAIN_LAYERS = {"full_attention", "sliding_attention"}


def no_mask() -> torch.Tensor:
    """What stands for the attention mask of a flat batch: `cu_seq_lens_q` says it all.

    Four dimensions, because transformers takes such a mask as it is: without one it searches
    `position_ids` for restarts, and the device waits for the host at every forward pass.
    """
    return torch.empty(0, 0, 0, 0, dtype=torch.bool)


def causal_mask() -> torch.Tensor:
    """What stands for the mask of rows that are one example each, all of one length.

    Also of four dimensions. While a CUDA graph is recorded, transformers cannot search positions,
    and would take any rows for several examples.
    """
    return torch.empty(1, 0, 0, 0, dtype=torch.bool)


def register() -> None:
    """Make `attn_implementation="flat"` known to transformers. Safe to call again."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, make_mask)


def takes_flat(model: PreTrainedModel) -> bool:
    """Whether `model` takes flat batches, as `probe.settle` has left it; else padded ones."""
    return model.config._attn_implementation == NAME


def why_not_flat(model: PreTrainedModel) -> str | None:
    """What in `model` is not expressed by causal attention within each example; None if nothing."""
    config = model.config.get_text_config()
    if not model._supports_attention_backend:
        return "does not call transformers' AttentionInterface"
    if getattr(config, "attn_logit_softcapping", None):
        return f"has a soft cap of {config.attn_logit_softcapping} on its attention"
    if any(name.endswith("sinks") for name, _ in model.named_parameters()):
        return "has attention sinks"
    if getattr(config, "attention_dropout", 0.0):
        return f"has an attention dropout of {config.attention_dropout}"
    if others := set(getattr(config, "layer_types", None) or []) - _PLAIN_LAYERS:
        return f"has layers of {', '.join(sorted(others))}"
    return None


def make_mask(
    *args: object, attention_mask: torch.Tensor | None = None, **kwargs: object
) -> torch.Tensor | None:
    """The mask of a batch that came without one of four dimensions.

    Positions that restart (transformers then forbids the causal skip) get `no_mask`, which
    `attend` accepts only beside `cu_seq_lens_q`. Everything else gets sdpa's own mask: None here
    would attend to the left padding of a batch of prompts.
    """
    restarts = not kwargs.get("allow_is_causal_skip", True) and not kwargs.get("use_vmap")
    if attention_mask is None and restarts:
        return no_mask()
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """[batch, heads, tokens, size] -> [batch, tokens, heads, size], as transformers calls it.

    In a flat batch (batch 1) `cu_seq_lens_q` is int32 [examples + 1], the bounds of the examples,
    and `max_length_q` the length of the longest; `no_mask` goes with them. `causal_mask` says that
    every row is one example. `sliding_window` counts the token itself.
    """
    if cu_seq_lens_q is None:
        if _is_causal_mask(attention_mask):
            attention_mask = _window_mask(query.shape[2], sliding_window, query.device)
        _refuse_restarts(attention_mask)
        if attention_mask is None and query.is_cuda and query.shape[2] == key.shape[2] > 1:
            return _stacked(query, key, value, scaling), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise ValueError(
            f"a flat batch is one row without a cache, not {tuple(query.shape)} against "
            f"{key.shape[2]} keys; load the model with use_cache=False"
        )
    if query.is_cuda and _fits_varlen(query, value):
        return _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window)
    bounds = cu_seq_lens_q.tolist()
    parts = _each(query, key, value, bounds, scaling, sliding_window)
    return torch.cat(list(parts), dim=2).transpose(1, 2).contiguous(), None


def _is_causal_mask(mask: torch.Tensor | None) -> bool:
    return mask is not None and mask.shape[0] == 1 and mask.numel() == 0


def _refuse_restarts(attention_mask: torch.Tensor | None) -> None:
    if attention_mask is not None and attention_mask.numel() == 0:
        raise ValueError(
            "position_ids restart, but cu_seq_lens_q is missing: the examples of this flat batch "
            "would see each other; pass the bounds of the examples"
        )


def _stacked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Causal attention in rows of one length, by the kernel that is fastest for it."""
    grouped = query.shape[1] != key.shape[1]
    with sdpa_kernel(_FASTEST_FIRST, set_priority=True):
        out = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped
        )
    return out.transpose(1, 2).contiguous()


def _fits_varlen(query: torch.Tensor, value: torch.Tensor) -> bool:
    half = query.dtype in (torch.bfloat16, torch.float16)
    return half and query.shape[-1] == value.shape[-1] <= _LARGEST_VARLEN_HEAD


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> tuple[torch.Tensor, None]:
    """One flash kernel over all examples."""
    # The kernel counts the tokens before a token, transformers the token too.
    before = -1 if window is None else window - 1
    options: dict[str, object] = {"scale": scaling, "window_size": (before, 0)}
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if "enable_gqa" in _VARLEN_OPTIONS:  # torch 2.11 takes fewer keys than queries as they are
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    out = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)
    return out[None], None


def _each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: list[int],
    scaling: float | None,
    window: int | None,
) -> Iterator[torch.Tensor]:
    """The examples one by one: the CPU has no kernel for them together."""
    grouped = query.shape[1] != key.shape[1]
    for start, end in zip(bounds, bounds[1:], strict=False):
        mask = _window_mask(end - start, window, query.device)
        yield scaled_dot_product_attention(
            *(tensor[:, :, start:end] for tensor in (query, key, value)),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=grouped,
        )


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """True where a token may look: at itself and the `window - 1` tokens before it."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)
