"""A message, its identity, and where Redis is: what both processes of this peer agree on."""

import os
import re
import time
from hashlib import sha256
from typing import Annotated
from urllib.parse import unquote, urlparse

from arq.connections import RedisSettings
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr

Id = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


def _plain(phone: object) -> object:
    return re.sub(r"[ \-()\[\]]", "", phone) if isinstance(phone, str) else phone


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold NUL")
    return text


def _sent(seconds: int) -> int:
    if not 946_684_800 <= seconds <= time.time() + 86_400:
        raise ValueError("must be between 2000-01-01 and a day from now")
    return seconds


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    external_message_id: Id
    external_client_id: Id
    client_phone: Annotated[StrictStr, BeforeValidator(_plain), Field(pattern=r"^\+[1-9][0-9]{6,14}$")]
    message_text: Annotated[StrictStr, Field(min_length=1, max_length=4096), AfterValidator(_text)]
    send_at: Annotated[StrictInt, AfterValidator(_sent)]


def key_of(message_id: str) -> bytes:
    """As Weir's MessageKey: a 16-byte digest of (source, id)."""
    source = b"messenger"
    return sha256(len(source).to_bytes(8) + source + message_id.encode()).digest()[:16]


def fingerprint_of(message: dict) -> int:
    """As Weir's Fingerprint: 56 bits of a digest of the content."""
    digest = sha256()
    for field in ("external_client_id", "client_phone", "message_text"):
        value = message[field].encode()
        digest.update(len(value).to_bytes(8) + value)
    digest.update(message["send_at"].to_bytes(8))
    return int.from_bytes(digest.digest()[:7])


def redis_settings() -> RedisSettings:
    settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    # arq takes the password as it stands in the URL.
    password = urlparse(os.environ["REDIS_URL"]).password
    settings.password = unquote(password) if password else None
    return settings
