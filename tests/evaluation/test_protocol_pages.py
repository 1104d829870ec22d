"""docs/protocols.md says of each protocol what its module does, and its Chinese twin has the same rows."""

import re
from pathlib import Path

import pytest

from workflow_scripts.evaluation.protocols import MODULES
from workflow_scripts.evaluation.protocols.judge import Judge

DOCS = Path(__file__).parents[2] / "docs"
ENGLISH, CHINESE = (
    " ".join((DOCS / name).read_text("utf-8").split()) for name in ("protocols.md", "protocols.zh.md")
)


@pytest.mark.parametrize("protocol", [*MODULES, Judge], ids=lambda protocol: protocol.NAME)
def test_the_pages_say_what_a_protocol_does_and_what_is_wrong_with_it(protocol):
    numbers = ", ".join(f"`{name}`" for name in protocol.NUMBERS) or "none"
    row = f"| `{protocol.NAME}` | {protocol.DEFINITION} | {protocol.DENOMINATOR} | {numbers} |"
    assert row in ENGLISH and f"**`{protocol.NAME}`**: {protocol.SOURCE}." in ENGLISH
    assert all(f"- {fault}" in ENGLISH for fault in protocol.FAULTS)
    assert all(f"`{name}`" in CHINESE for name in (protocol.NAME, *protocol.NUMBERS))
    addresses = re.findall(r"https?://[\w./-]+\w", protocol.SOURCE)
    assert all(address in CHINESE for address in addresses)
