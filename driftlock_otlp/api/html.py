"""HTML in which text is escaped unless it says that it is HTML."""

from __future__ import annotations

import html

_VOID = frozenset({"meta", "link", "br"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str) -> Html:
    """Return an element; children that are not `Html` are escaped, None is left out.

    An underscore at the end of an attribute's name is dropped, others become hyphens.

    >>> tag("p", "a < b ", tag("b", "c"), class_="x")
    '<p class="x">a &lt; b <b>c</b></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(value))}"' for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    inner = "".join(
        child if isinstance(child, Html) else html.escape(printable(child)) for child in children if child is not None
    )
    return Html(f"<{name}{given}>{inner}</{name}>")


def printable(text: str) -> str:
    """Return text without characters that have no form or change the direction of others.

    >>> printable("a\\x00b\\u202ec d")
    'a�b�c d'
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
