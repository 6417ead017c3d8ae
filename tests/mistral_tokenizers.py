"""Mistral's own tokenizers as transformers loads them, made from the files of `mistral-common`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import mistral_common

DATA = Path(mistral_common.__file__).parent / "data"

# As in the repositories of the two models, in our words.
TEMPLATE_7B = """
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}
{%- set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}
{{- bos_token }}
{%- for turn in turns %}
  {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('roles must alternate') }}
  {%- endif %}
  {%- if turn['role'] == 'user' and loop.first and system is defined %}
    {{- ' [INST] ' + system + '\n\n' + turn['content'] + ' [/INST]' }}
  {%- elif turn['role'] == 'user' %}{{- ' [INST] ' + turn['content'] + ' [/INST]' }}
  {%- else %}{{- ' ' + turn['content'] + eos_token }}{% endif %}
{%- endfor %}
"""
TEMPLATE_7B_NO_SYSTEM = """
{{- bos_token }}
{%- for turn in messages %}
  {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('roles must alternate') }}
  {%- endif %}
  {%- if turn['role'] == 'user' %}{{- ' [INST] ' + turn['content'] + ' [/INST]' }}
  {%- else %}{{- ' ' + turn['content'] + eos_token }}{% endif %}
{%- endfor %}
"""
TEMPLATE_24B = """
{%- set usual = 'The current date is ' + strftime_now('%Y-%m-%d') + '.' %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}
{%- set turns = messages[1:] %}{% else %}{% set system = usual %}{% set turns = messages %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}
{%- for turn in turns %}
  {%- if turn['role'] == 'user' %}{{- '[INST]' + turn['content'] + '[/INST]' }}
  {%- else %}{{- turn['content'] + eos_token }}{% endif %}
{%- endfor %}
"""


def write_7b(folder: Path, template: str = TEMPLATE_7B) -> Path:
    """The tokenizer of Mistral-7B-Instruct-v0.2, from its sentencepiece model."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer, models

    pieces = SentencePieceProcessor(model_file=str(DATA / "tokenizer.model.v1"))
    vocab = {pieces.id_to_piece(n): n for n in range(pieces.get_piece_size())}
    merges = sorted(
        (-pieces.get_score(n), n, piece[:at], piece[at:])
        for piece, n in vocab.items()
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    )
    model = models.BPE(
        vocab, [tuple(each[2:]) for each in merges], unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return _write(folder, tokenizer, template, tokenizer_class="LlamaTokenizer", legacy=False)


def write_24b(folder: Path, template: str = TEMPLATE_24B) -> Path:
    """The tokenizer of Mistral-Small-24B-Instruct-2501, from its tekken file."""
    from transformers.integrations.mistral.tokenizer import MistralConverter

    tokenizer = MistralConverter(str(DATA / "tekken_240911.json")).converted()
    return _write(folder, tokenizer, template, tokenizer_class="PreTrainedTokenizerFast")


def golden_7b() -> Callable[[Sequence[dict[str, str]]], list[int]]:
    """What Mistral's own code makes of a conversation for the 7B."""
    return _golden(DATA / "tokenizer.model.v1")


def golden_24b(folder: Path) -> Callable[[Sequence[dict[str, str]]], list[int]]:
    """The same for the 24B: the vocabulary of the file, with the turns of version 7."""
    values = json.loads((DATA / "tekken_240911.json").read_text(encoding="utf-8"))
    values["config"]["version"] = "v7"
    path = folder / "tekken.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return _golden(path)


def _golden(path: Path) -> Callable[[Sequence[dict[str, str]]], list[int]]:
    from mistral_common.protocol.instruct import messages as kinds
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    tokenizers = {
        mode: MistralTokenizer.from_file(str(path), mode=mode)
        for mode in (ValidationMode.test, ValidationMode.finetuning)
    }
    roles = {"user": kinds.UserMessage, "assistant": kinds.AssistantMessage}
    roles["system"] = kinds.SystemMessage

    def encode(messages: Sequence[dict[str, str]]) -> list[int]:
        answered = messages[-1]["role"] == "assistant"
        mode = ValidationMode.finetuning if answered else ValidationMode.test
        turns = [roles[each["role"]](content=each["content"]) for each in messages]
        return tokenizers[mode].encode_chat_completion(ChatCompletionRequest(messages=turns)).tokens

    return encode


def _write(folder: Path, tokenizer, template: str, **config) -> Path:
    from tokenizers.processors import TemplateProcessing

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {"add_bos_token": True, "add_eos_token": False, "chat_template": template.strip()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
