"""Tokens and passwords: a command that holds one is refused, and what is written or logged shows *** in its place."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

HIDDEN = "***"
SHORTEST = 16
"""Known values that are shorter are no tokens, and could stand in any text."""

NAME = r"(?:token|api_?key|password|secret)"
VARIABLE = re.compile(NAME + "$", re.IGNORECASE)
SHAPES = re.compile(
    r"(?:hf_[A-Za-z0-9]{20,}|wandb_v1_\w{20,}|gh[pousr]_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
QUOTE = r"(?:\\*['\"])?"  # in JSON behind a backslash
HEADERS = re.compile(rf"(Authorization{QUOTE}\s*[:=]\s*b?{QUOTE}(?:Bearer|Basic)\s+)[^\s'\"\\]+", re.IGNORECASE)
NAMED = re.compile(
    rf"^[\w.+~/@-]*(?<![A-Za-z0-9]){NAME}=(?!null$|''$|\"\"$|$)"  # hub.token=x
    rf"|[{{,]\s*['\"]?(?:\w*_)?{NAME}['\"]?\s*:\s*(?!null\b)[^\s,}}]",  # env_set={{HF_TOKEN:x}}
    re.IGNORECASE,
)
REFERENCE = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")
CURE = (
    "a token is taken from the environment or the login cache only: set HF_TOKEN or run `hf auth login`, for W&B set "
    "WANDB_API_KEY or run `wandb login`. In a setting it would be written to .hydra/, run.json and the shell's history; one "
    "that was typed is best replaced by a new one"
)


def refuse(arguments: Sequence[str]) -> None:
    """ValueError, which does not repeat it, if an argument holds a token, a password or a reference to the variable of one."""
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        where = "an argument" if not key or key == argument or redact(key) != key else key
        if redact(argument) != argument or NAMED.search(argument):
            raise ValueError(f"{where} holds a token or a password; {CURE}")
        if any(_is_secret(name) for name in REFERENCE.findall(argument)):
            raise ValueError(f"{where} refers to a variable that holds a token; {CURE}")


def refuse_in(settings: Any, key: str = "") -> None:
    """ValueError, which names the setting, if a text in nested settings holds a token or a password."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            refuse_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            refuse_in(value, key)
    elif isinstance(settings, str) and redact(settings) != settings:
        raise ValueError(f"{key} holds a token or a password; {CURE}")


def redact(text: str) -> str:
    """The text with *** for every token of this environment and the login caches, and for all that has a token's shape."""
    for secret in _known(*_sources()):
        text = text.replace(secret, HIDDEN)
    return HEADERS.sub(rf"\1{HIDDEN}", SHAPES.sub(HIDDEN, text))


def _is_secret(variable: str) -> bool:
    value = os.environ.get(variable, "")
    return bool(VARIABLE.search(variable)) or redact(value) != value


def _sources() -> tuple[frozenset[str], Path, Path]:
    values = frozenset(value for name, value in os.environ.items() if VARIABLE.search(name))
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    login = Path(os.environ.get("HF_TOKEN_PATH") or Path(os.environ.get("HF_HOME") or home) / "token")
    return values, login, Path(os.environ.get("NETRC") or "~/.netrc").expanduser()


@lru_cache(maxsize=8)
def _known(values: frozenset[str], login: Path, logins: Path) -> tuple[str, ...]:
    found = {value.strip() for value in (*values, _text(login))}
    found |= set(re.findall(r"\bpassword\s+(\S+)", _text(logins)))
    return tuple(sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


# What is logged and printed


class Redacting(logging.Formatter):
    """Another formatter's text, tracebacks included, without tokens."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self.inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return redact(self.inner.format(record))


def redact_logs() -> None:
    """Keep tokens out of what the root logger's handlers write from now on."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, Redacting):
            handler.setFormatter(Redacting(handler.formatter))


def redact_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of sys.excepthook: the same traceback without tokens."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
