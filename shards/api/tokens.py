"""Files with a bearer token, as they are rotated.

What it keeps true: a file that is empty, gone or half written at the moment it is read, since not every writer replaces
its file in one step, takes the last token away from nobody. As in client-go, that one is kept and the file is read
again soon. Who keeps it is the caller: `client.credentials` for ``token_file``, `kubeconfig` for a user's ``tokenFile``
and for the service account of a pod.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

AGAIN_S: Final = 2.0
"""After so many seconds a file that held no token is read again."""


class NoToken(Exception):  # noqa: N818 - what was found; callers make an error of their own of it
    """The file holds no token now. Its text says why: it goes on from the file's name."""


def read_token(file: Path) -> str:
    """The token in a file, without the white space around it.

    Raises:
        NoToken: the file cannot be read, is empty, or holds what is no token.
    """
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoToken(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not token:
        raise NoToken("is empty: expected a token")
    if not is_token(token):
        raise NoToken("holds characters that no token has, such as blanks")
    return token


def is_token(text: str) -> bool:
    """Whether a text may stand in a header as a token."""
    return all("!" <= letter <= "~" for letter in text)
