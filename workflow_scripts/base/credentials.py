"""Credentials that stand in an address, as in https://user:secret@host, and how to keep them to oneself."""

import re

# Up to the last "@" before the path: a password may hold one.
_USERINFO = re.compile(r"(?<=://)[^/\s]*@")


def stands_in(address: str) -> bool:
    """Whether a user or password stands in `address`."""
    return bool(_USERINFO.search(address))


def without(text: str) -> str:
    """`text` whose addresses name neither user nor password."""
    return _USERINFO.sub("", text)
