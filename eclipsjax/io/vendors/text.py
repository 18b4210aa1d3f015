"""Bytes of unknown encoding to text, and text of `key=value` lines to mappings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECTION = re.compile(r"\[([^\]]+)\]")
# What precedes the first word of a binary tag is no part of the key.
_ENTRY = re.compile(r"[^\w$]*([\w$. -]+?)\s*=\s*(.*)")


def as_text(value: Any) -> str:
    """The text of a tag or file: UTF-8, UTF-16 (with its mark, or known by its zeros), or else one byte a letter."""
    if isinstance(value, tuple | list):
        value = bytes(v for v in value if isinstance(v, int) and 0 <= v < 256)
    if not isinstance(value, bytes | bytearray):
        return str(value)
    raw = bytes(value)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    for encoding, zeros in (("utf-16-le", raw[1:200:2]), ("utf-16-be", raw[:200:2])):
        if len(zeros) > 4 and zeros.count(0) > 0.8 * len(zeros):
            return raw.decode(encoding, errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def sections(text: str) -> dict[str, dict[str, str]]:
    """`[section]` and `key=value` lines; what stands before any section is under ""; other lines are skipped."""
    found: dict[str, dict[str, str]] = {}
    name = ""
    for line in text.splitlines():
        line = line.strip("\0 \t")
        if head := _SECTION.fullmatch(line):
            name = head[1].strip()
        elif entry := _ENTRY.match(line):
            found.setdefault(name, {})[entry[1].strip()] = entry[2].strip("\0 \t")
    return found


def section(raw: Mapping[str, Any], name: Any) -> Mapping[str, Any]:
    """The section `name`, empty where it is missing or no section."""
    found = raw.get(name) if isinstance(name, str) else None
    return found if isinstance(found, Mapping) else {}
