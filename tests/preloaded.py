"""What stages need, imported once in the server that the tests' sessions are forked from."""

import gc

import aiohttp  # noqa: F401
import dvc.repo  # noqa: F401
import fsspec  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.integrations.mistral import tokenizer  # noqa: F401
from transformers.models.mistral import modeling_mistral  # noqa: F401

import stages.fetch.web  # noqa: F401
import stages.train.__main__  # noqa: F401

get_checkpoint_conversion_mapping("mistral")
# Sessions then need not walk through all of torch's objects when they collect garbage.
gc.collect()
gc.freeze()
