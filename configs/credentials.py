"""Credentials in what a user wrote: refused where a configuration is read, masked where text is shown."""

from __future__ import annotations

import re
from typing import Any

from configs.errors import CredentialsError

# A colon with no port behind it is a password too: secrets may hold slashes, which would end the host's part.
_LOGIN = re.compile(r"(?<=://)(?!\[|arn:)[^/?#\s'\"]*(?:@|:(?!\s|$|\d{1,5}(?:[/?#\s'\"]|$)))[^@\s'\"]*@?")
_SIGNED = re.compile(
    r"(?<=[?&])(x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid|"
    r"googleaccessid|signature|sig|access_?token|token|api_?key|secret|password|passwd|pwd)=[^&#\s'\"]*",
    re.IGNORECASE,
)
_ADVICE = "(what stands there is not repeated here; if others may have read it, replace it)"


def refuse(value: Any) -> None:
    """Raise CredentialsError, without repeating it, if a text (or one in a list) is a URL that carries credentials."""
    if isinstance(value, list | tuple):
        for item in value:
            refuse(item)
    if not isinstance(value, str):
        return
    for url in value.split("::"):
        if _LOGIN.search(url) and not url.startswith("file:"):
            raise CredentialsError(
                "it is a URL with a user name or password in it; take them out: credentials come from the usual "
                f"environment, or from `storage` as env:NAME {_ADVICE}"
            )
        if _SIGNED.search(url):
            raise CredentialsError(
                "it is a URL with a signature or token in its query; name the object without it: credentials come "
                f"from the usual environment, or from `storage` as env:NAME {_ADVICE}"
            )


def masked(text: str) -> str:
    """`text` with logins, signatures and tokens in its URLs replaced by `***`."""
    return _SIGNED.sub(r"\1=***", "::".join(_LOGIN.sub("***@", part) for part in text.split("::")))
