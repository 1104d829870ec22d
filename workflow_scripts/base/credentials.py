"""Credentials, in an address as https://user:secret@host or in the environment, and how to keep them to oneself."""

import os
import re

# Up to the last "@" before the path: a password may hold one.
_USERINFO = re.compile(r"(?<=://)[^/\s]*@")
# Variables whose values are secrets: HF_TOKEN, WANDB_API_KEY, MLFLOW_TRACKING_PASSWORD, PGPASSWORD and their like.
_SECRET = re.compile(r"(?:TOKEN|KEY|PASSWORD|PASSWD|SECRET)$", re.IGNORECASE)
# A token that comes from a file, in what a server says or in a header.
_TOKEN = re.compile(r"\bhf_\w{8,}|(?<=Bearer )[^\s'\"]+")
_SHORTEST = 6  # characters; what is shorter stands in words that are no secret


def stands_in(address: str) -> bool:
    """Whether a user or password stands in `address`."""
    return bool(_USERINFO.search(address))


def without(text: str) -> str:
    """`text` whose addresses name neither user nor password."""
    return _USERINFO.sub("", text)


def hidden(text: str) -> str:
    """`text` without what `without` leaves out, tokens, and the secrets of the environment."""
    found = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST}
    for secret in sorted(found, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    return _TOKEN.sub("***", without(text))
