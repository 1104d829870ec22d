"""Images inside a row: bytes, as the hub stores them, a `data:` URL, or base64."""

import base64
import binascii
import hashlib
import io
import re
from pathlib import Path

from workflow_scripts.base.files import replacing

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
# As base64 begins of a JPEG, PNG, GIF, WebP, TIFF or BMP; no path is so long a row of its characters.
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|Qk)[A-Za-z0-9+/\s]{64,}={0,2}\s*")
_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}


def image_bytes(image: object) -> bytes | None:
    """The bytes of an image as a row holds it; None where that is no image but names one.

    What begins as an image and is none is a ValueError.
    """
    if isinstance(image, dict):
        image = image.get("bytes")
    if not isinstance(image, str):
        return image if isinstance(image, bytes) else None
    if match := _DATA_URL.match(image):
        return _decoded(image[match.end() :])
    if image[:5].lower() == "data:":
        raise ValueError("a data: URL that is not in base64")
    return _decoded(image) if _BASE64.fullmatch(image) else None


def keep(data: bytes, path: Path) -> None:
    """Write the bytes of an image as they are; a file that is there already stays, for its name tells its content."""
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(data)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"base64 that cannot be decoded ({error})") from None


def name(data: bytes) -> str:
    """The file name of an image: the first 16 digits of its SHA-256 and its format's extension; else a ValueError."""
    from PIL import Image  # the configuration knows tables, but needs no pictures

    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = image.format or ""
    except Exception:  # a damaged image may raise anything
        raise ValueError(f"{len(data)} bytes that are no image of a known format") from None
    return f"{hashlib.sha256(data).hexdigest()[:16]}.{_EXTENSIONS.get(kind, kind.lower())}"
