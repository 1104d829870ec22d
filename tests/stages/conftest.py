"""A hub on this machine that takes uploads."""

import time

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session, disable_progress_bars, enable_progress_bars
from receiving_hub import ReceivingHub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running hub that huggingface_hub takes for the real one, and a token for it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before it tries again
    disable_progress_bars()
    with ReceivingHub("hf_secretsecretsecret") as hub:
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        yield hub
    enable_progress_bars()
    close_session()
