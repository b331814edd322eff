"""Log templates, mined online: which bodies are the same sentence with other parameters.

The miner follows Drain (He, Zhu, Zheng & Lyu 2017, "Drain: An Online Log Parsing Approach with
Fixed Depth Tree"): clusters are found by the number of tokens and the first token, a new line
joins the cluster with which it shares enough tokens, and tokens that differ become `<*>`. Most
lines never get that far:

    bodies ─▶ keys: runs of digits become one 0, in a few passes over the joined window
           ─▶ key known?    ─▶ cluster                                (most lines end here)
           ─▶ masked text: one regular expression over the joined unknown keys
           ─▶ text known?   ─▶ cluster
           ─▶ tree          ─▶ nearest cluster, or a new one

Invariants:
1. A cluster's label is its masked text at creation and never changes, however far its
   template generalises: to the detector a symbol stays the same symbol.
2. A masked text is a function of the body alone. Its cluster is remembered in `_known`, which is
   part of the state; `_cluster_of_key` only mirrors it, so losing that changes nothing but time.
   Both are cleared together, and only between windows.
3. Everything is bounded: clusters, remembered texts, tokens compared, characters read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from driftlock_otlp.detection.columns import Codes
from driftlock_otlp.otlp import scanning

WILDCARD = "<*>"
"""Stands for a parameter."""

OTHER = "<other>"
"""Label of every template beyond the bound on clusters."""

MAX_BODY_CHARS = 2_000
"""Characters of a body that are looked at."""

MAX_CLUSTERS = 2_000
_MAX_KNOWN = 3_000
_MAX_KEYS = 4_000
_MAX_KEY_CHARS = 400_000
_MAX_TOKENS = 64
_MAX_FIRST_TOKENS = 100
_SIMILARITY = 0.4  # as in Drain; 0.5 splits variable-heavy lines, 0.3 merges unlike ones

_SEPARATOR = "\0"
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)

# Works on keys, where every run of digits is a single 0. Each alternative starts with a plain
# character or set, so that the engine can skip to candidates without trying every position.
_PARAMETER = re.compile(
    r"[0a-fA-F](?<!\w.)[0a-fA-F]{0,7}-[0a-fA-F]{1,4}-[0a-fA-F]{1,4}-[0a-fA-F]{1,4}-[0a-fA-F]{1,12}(?!\w)"  # UUID
    r"|0[xX][0a-fA-F]++"  # 0x1f
    # A number, an address, a version, a date; what follows within the word goes with it, unless
    # it is as short as a unit (15ms, 4KB).
    r"|0(?:[.:,\-/]*+0)*+(?:\w{4,}+|[a-fA-F]0\w*+)?"
    r"|[a-fA-F](?<!\w.)[a-fA-F]*+0[0a-fA-F]*+(?!\w)"  # hexadecimal that starts with a letter
    r"|\"(?<!\w.)[^\"\0\n]{0,200}+\""
    r"|'(?<!\w.)[^'\0\n]{0,200}+'(?!\w)"
)


class TemplateMiner:
    """Finds the template of every line of one stream; online and deterministic.

    Limits: a template is recognised by its number of tokens, so a list of varying length in the
    middle of a sentence makes one template per length.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._labels: list[str] = [OTHER]
        self._cluster_of_label: dict[str, int] = {OTHER: 0}
        self._known: dict[str, int] = {}
        self._cluster_of_key: dict[str, int] = {}
        self._key_chars = 0
        self._tree = _Tree()

    def mine(self, bodies: Sequence[str | None]) -> tuple[Codes, list[str]]:
        """Return the template of each body.

        Args:
            bodies: Log bodies in order; None where a record has none.

        Returns:
            int32 codes of shape (n,), -1 for None, and the labels that they index: the distinct
            templates of these bodies, oldest first.
        """
        present = [body for body in bodies if body is not None]
        clusters = self.clusters_of(present)
        if len(present) < len(bodies):
            found = iter(clusters)
            clusters = [-1 if body is None else next(found) for body in bodies]
        return self.encode(clusters)

    def adopt(self, template: str) -> int:
        """Return the cluster of a template that the sender has found itself."""
        label = template[:MAX_BODY_CHARS]
        cluster = self._cluster_of_label.get(label)
        return self._create(label) if cluster is None else cluster

    def encode(self, clusters: list[int]) -> tuple[Codes, list[str]]:
        """Return codes and labels, as `mine` does, of clusters; -1 stays -1."""
        numbers = np.array(clusters, dtype=np.int32)
        used, codes = np.unique(numbers, return_inverse=True)
        offset = 1 if used.size and used[0] < 0 else 0
        labels = [self._labels[cluster] for cluster in used[offset:].tolist()]
        return (codes - offset).astype(np.int32), labels

    def clusters_of(self, bodies: Sequence[str]) -> list[int]:
        """Return the cluster of each body, for `encode`."""
        return self._clusters([body[:MAX_BODY_CHARS] for body in bodies])

    def generalised(self) -> dict[str, str]:
        """Return the template as it stands today, by label, of every cluster mined."""
        return {self._labels[cluster]: " ".join(tokens) for cluster, tokens in self._tree.templates()}

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        templates = dict(self._tree.templates())
        return {
            "labels": self._labels[1:],
            "templates": [templates.get(cluster, []) for cluster in range(1, len(self._labels))],
            "known": list(self._known),
            "known_clusters": list(self._known.values()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the miner that returned this state."""
        self._clear()
        for label, tokens in zip(state["labels"], state["templates"], strict=True):
            cluster = self._create(label)
            if tokens:
                self._tree.add(cluster, _tokens(label), list(tokens))
        self._known = dict(zip(state["known"], state["known_clusters"], strict=True))

    def _clusters(self, bodies: list[str]) -> list[int]:
        if len(self._known) >= _MAX_KNOWN:
            self._known = {}
            self._cluster_of_key = {}
            self._key_chars = 0
        keys = _keys(bodies)
        cluster_of_key = self._cluster_of_key
        unknown = [key for key in dict.fromkeys(keys) if key not in cluster_of_key]
        if not unknown:
            return [cluster_of_key[key] for key in keys]
        fresh = {key: self._resolve(text) for key, text in zip(unknown, _mask(unknown), strict=True)}
        clusters = [fresh[key] if key in fresh else cluster_of_key[key] for key in keys]
        self._remember_keys(fresh)
        return clusters

    def _remember_keys(self, fresh: dict[str, int]) -> None:
        chars = sum(map(len, fresh))
        if len(self._cluster_of_key) + len(fresh) > _MAX_KEYS or self._key_chars + chars > _MAX_KEY_CHARS:
            self._cluster_of_key = {}
            self._key_chars = 0
        self._cluster_of_key.update(fresh)
        self._key_chars += chars

    def _resolve(self, text: str) -> int:
        cluster = self._known.get(text)
        if cluster is not None:
            return cluster
        tokens = _tokens(text)
        label = " ".join(tokens)
        cluster = self._cluster_of_label.get(label)
        if cluster is None:
            cluster = self._tree.match(tokens)
        if cluster is None:
            cluster = self._create(label)
            if cluster:
                self._tree.add(cluster, tokens, tokens)
        self._known[text] = cluster
        return cluster

    def _create(self, label: str) -> int:
        if len(self._labels) > MAX_CLUSTERS:
            return 0
        self._cluster_of_label[label] = cluster = len(self._labels)
        self._labels.append(label)
        return cluster


class _Leaf:
    """Clusters with as many tokens and the same first token, as a matrix of token numbers."""

    def __init__(self, width: int) -> None:
        self.clusters: list[int] = []
        self.templates: list[list[str]] = []
        self._rows: npt.NDArray[np.int32] = np.empty((0, width), dtype=np.int32)

    def add(self, cluster: int, template: list[str], numbers: list[int]) -> None:
        self.clusters.append(cluster)
        self.templates.append(template)
        self._rows = np.vstack([self._rows, np.array([numbers], dtype=np.int32)])

    def merge_nearest(self, tokens: list[str], numbers: list[int]) -> int | None:
        """Return the cluster most like these tokens, generalised to cover them; None if too unlike."""
        equal = self._rows == np.array(numbers, dtype=np.int32)
        shared = equal.sum(axis=1)
        nearest = int(shared.argmax())
        if shared[nearest] < max(1.0, _SIMILARITY * len(tokens)):
            return None
        template = self.templates[nearest]
        for place in np.flatnonzero(~equal[nearest]).tolist():
            template[place] = WILDCARD
            self._rows[nearest, place] = _Tree.TEMPLATE_WILDCARD
        return self.clusters[nearest]


class _Tree:
    """Drain's tree of fixed depth: number of tokens, then first token, then a leaf."""

    TEMPLATE_WILDCARD = 0
    _LINE_WILDCARD = -1  # unequal to a template's, so that parameters do not count as likeness
    _UNSEEN = -2

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._first_tokens: dict[int, set[str]] = {}
        self._leaves: dict[tuple[int, str], _Leaf] = {}

    def templates(self) -> list[tuple[int, list[str]]]:
        """Return every cluster with its tokens as generalised so far."""
        return [
            (cluster, list(template))
            for leaf in self._leaves.values()
            for cluster, template in zip(leaf.clusters, leaf.templates, strict=True)
        ]

    def match(self, tokens: list[str]) -> int | None:
        """Return the cluster that takes these tokens in, or None."""
        leaf = self._leaves.get(self._path(tokens, may_grow=False))
        if leaf is None:
            return None
        get = self._numbers.get
        numbers = [self._LINE_WILDCARD if token == WILDCARD else get(token, self._UNSEEN) for token in tokens]
        return leaf.merge_nearest(tokens, numbers)

    def add(self, cluster: int, tokens: list[str], template: list[str]) -> None:
        """Add a cluster that was created from `tokens` and has become `template`."""
        path = self._path(tokens, may_grow=True)
        leaf = self._leaves.get(path)
        if leaf is None:
            leaf = self._leaves[path] = _Leaf(len(tokens))
        numbers = [
            self.TEMPLATE_WILDCARD if token == WILDCARD else self._numbers.setdefault(token, len(self._numbers) + 1)
            for token in template
        ]
        leaf.add(cluster, list(template), numbers)

    def _path(self, tokens: list[str], may_grow: bool) -> tuple[int, str]:
        first = tokens[0]
        if WILDCARD in first:
            return len(tokens), WILDCARD
        seen = self._first_tokens.setdefault(len(tokens), set())
        if first not in seen:
            if len(seen) >= _MAX_FIRST_TOKENS:
                return len(tokens), WILDCARD
            if may_grow:
                seen.add(first)
        return len(tokens), first


def _keys(bodies: list[str]) -> list[str]:
    """Return each body with every run of digits as a single 0.

    >>> _keys(["took 1250 ms", "port 80"])
    ['took 0 ms', 'port 0']
    """
    if not bodies:
        return []
    joined = _SEPARATOR.join(bodies)
    if joined.count(_SEPARATOR) != len(bodies) - 1:
        joined = _SEPARATOR.join([body.replace(_SEPARATOR, " ") for body in bodies])
    return _collapse_digits(joined.encode("utf-8", "replace")).decode("utf-8", "replace").split(_SEPARATOR)


def _collapse_by_passes(raw: bytes) -> bytes:
    """Return a text with every run of digits as a single 0."""
    raw = raw.translate(_DIGITS_TO_ZERO)
    # Four, then thrice two to one: runs of up to 20 digits shrink to one, longer ones while any is left.
    while b"00" in raw:
        raw = raw.replace(b"0000", b"0").replace(b"00", b"0").replace(b"00", b"0").replace(b"00", b"0")
    return raw


_collapse_digits: Callable[[bytes], bytes] = (
    _collapse_by_passes if scanning.scan is None else scanning.scan.collapse_digits
)


def _mask(keys: list[str]) -> list[str]:
    return _PARAMETER.sub(WILDCARD, _SEPARATOR.join(keys)).split(_SEPARATOR)


def _tokens(text: str) -> list[str]:
    """Return at most 65 tokens, the last of which holds all the rest; never none."""
    return text.split(None, _MAX_TOKENS) or [""]
