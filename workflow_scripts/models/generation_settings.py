"""What a checkpoint's generation_config.json says: which tokens end an answer, and what would change answers."""

from typing import Any

from transformers import GenerationConfig

from workflow_scripts.models.catalogue import Version
from workflow_scripts.models.interfaces import Tokenizer

# Of a generation_config.json, what changes no answer.
_NO_SETTINGS = {
    "_from_model_config",
    "output_attentions",
    "output_hidden_states",
    "transformers_version",
    "use_cache",
}


def stops(config: GenerationConfig, words: Tokenizer, version: Version) -> frozenset[int]:
    """The tokens that end an answer: the checkpoint's, the tokenizer's, and the one that we train."""
    configured = config.eos_token_id
    found: set[int] = {configured} if isinstance(configured, int) else set(configured or [])
    trained = words.convert_tokens_to_ids(version.stop_token)
    return frozenset(found | {token for token in (words.eos_token_id, trained) if token is not None})


def that_change_answers(config: GenerationConfig) -> dict[str, Any]:
    """The settings (temperature, repetition_penalty, …) that would change answers, were they followed."""
    return {
        key: value
        for key, value in config.to_diff_dict().items()
        if not key.endswith("token_id") and key not in _NO_SETTINGS
    }
