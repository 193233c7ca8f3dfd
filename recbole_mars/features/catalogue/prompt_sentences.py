"""The parts of a prompt: sentences, brackets, labels, and what goes with a missing field."""
# ruff: noqa: RUF001 - quotes and stops of other languages are meant

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

__all__ = ["NODE", "Sentence", "fill_sentences", "split_sentences"]

NODE = "\0"  # stands for a field, or for brackets around fields, in the text around it
PAIRS = {"(": ")", "[": "]", "{": "}", "«": "»", "「": "」", "『": "』", "（": "）", "《": "》"}
PAIRS.update({"【": "】", '"': '"', "“": "”", "'": "'", "‘": "’"})
# <title> and </title> are brackets, too.
TAG_OR_CHARACTER = re.compile(r"<(?P<tag>\w+)>|</\w+>|.", re.DOTALL)
STOPPED = (".", "!", "?", "…", "。", "！", "？")  # a value that ends so needs no full stop
# A sentence ends in stops before white space, or at the end of a line.
SENTENCE_END = re.compile(r"([.!?…]+(?=\s|\Z)|[。！？]+|(?=[^\S\n]*\n))(\s*)")
# What parts two fields: marks right after the first one, or, after some text, a comma or a dash.
SEPARATOR = re.compile(r"\A\s*[.,;:!?|/·•–—&+~，；：、-]+\s*")
LATER_SEPARATOR = re.compile(r"[,;，；、]\s*|\s[|/·•–—-]\s+")


@dataclass(frozen=True)
class Sentence:
    """A sentence or line of a prompt.

    gap: white space before it. text: all of it but its end, if it has no parts. end: its stop.
    """

    gap: str
    text: str
    parts: tuple[_Part, ...]
    end: str


@dataclass(frozen=True)
class _Part:
    """A field, or brackets around fields, with what comes and goes with it.

    separator: between it and the part before it in its sentence. label, suffix: words of its own.
    """

    separator: str
    label: str
    node: _Node
    suffix: str


@dataclass(frozen=True)
class _Group:
    """Brackets or quotes around at least one field."""

    opening: str
    sentences: tuple[Sentence, ...]
    closing: str


_Node = Union[str, _Group]  # str: the name of a field


def split_sentences(text: str, nodes: Sequence[_Node]) -> tuple[Sentence, ...]:
    """The sentences of a text that holds NODE in place of each of `nodes`."""
    text, nodes = _group(text.strip(), iter(nodes))
    rest = iter(nodes)
    ends = [(m.start(), m.end(), m[1], m[2]) for m in SENTENCE_END.finditer(text)]
    if not ends or ends[-1][1] < len(text):
        ends.append((len(text), len(text), "", ""))
    sentences = []
    start, gap = 0, ""
    for at, after, end, next_gap in ends:
        pieces = text[start:at].split(NODE)
        sentences.append(Sentence(gap, pieces[0], _parts(pieces, rest), end))
        start, gap = after, next_gap
    return tuple(sentences)


def fill_sentences(sentences: Sequence[Sentence], values: Mapping[str, str]) -> str:
    """The text with these values in place of the fields, '' being missing; '' if all are."""
    bodies = [_fill_parts(sentence.parts, values) for sentence in sentences]
    if not any(bodies):
        return ""
    filled = ""
    for sentence, body in zip(sentences, bodies):
        if body or not sentence.parts:
            spare = sentence.end in (".", "。") and body.endswith(STOPPED)
            filled += sentence.gap if filled else ""
            filled += (body or sentence.text) + ("" if spare else sentence.end)
    return filled


def _fill_parts(parts: Sequence[_Part], values: Mapping[str, str]) -> str:
    filled = ""
    for part in parts:
        if isinstance(part.node, _Group):
            inner = fill_sentences(part.node.sentences, values)
            value = part.node.opening + inner + part.node.closing if inner else ""
        else:
            value = values[part.node]
        if value:
            filled += (part.separator if filled else "") + part.label + value + part.suffix
    return filled


def _parts(pieces: Sequence[str], nodes: Iterator[_Node]) -> tuple[_Part, ...]:
    """pieces: the texts around the nodes of a sentence, one more than nodes."""
    if len(pieces) == 1:
        return ()
    joints = [("", "", pieces[0]), *map(_joint, pieces[1:-1]), (pieces[-1], "", "")]
    return tuple(
        _Part(separator, label, next(nodes), suffix)
        for (_, separator, label), (suffix, _, _) in zip(joints, joints[1:])
    )


def _joint(text: str) -> tuple[str, str, str]:
    """What stands between two fields: suffix of the first, separator, label of the second."""
    found = SEPARATOR.search(text) or LATER_SEPARATOR.search(text)
    if found is None:
        label = text.lstrip()
        return "", text[: len(text) - len(label)], label
    return text[: found.start()], found.group(), text[found.end() :]


@dataclass
class _Open:
    """What stands after an opening bracket so far; the outermost has none."""

    bracket: str
    closing: str = ""
    text: str = ""
    nodes: list[_Node] = field(default_factory=list)

    def add(self, text: str, nodes: Sequence[_Node]) -> None:
        self.text += text
        self.nodes += nodes


def _group(text: str, names: Iterator[_Node]) -> tuple[str, list[_Node]]:
    """Replace brackets and quotes around fields by one node each; all others are plain text."""
    levels = [_Open("")]
    for found in TAG_OR_CHARACTER.finditer(text):
        token, tag = found[0], found["tag"]
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        closes = any(level.closing == token for level in levels[1:])
        if closes and not (token in "'’" and _in_word(after)):
            while levels[-1].closing != token:
                _forget_bracket(levels)
            inner = levels.pop()
            if inner.nodes:
                levels[-1].add(NODE, [_enclose(inner)])
            else:
                levels[-1].add(inner.bracket + inner.text + token, [])
        elif tag or (token in PAIRS and not (token == "'" and _apostrophe(before, after))):
            levels.append(_Open(token, f"</{tag}>" if tag else PAIRS[token]))
        else:
            levels[-1].add(token, [next(names)] if token == NODE else [])
    while len(levels) > 1:
        _forget_bracket(levels)
    return levels[0].text, levels[0].nodes


def _forget_bracket(levels: list[_Open]) -> None:
    """Make the innermost bracket plain text, as nothing closes it."""
    inner = levels.pop()
    levels[-1].add(inner.bracket + inner.text, inner.nodes)


def _enclose(inner: _Open) -> _Group:
    stripped = inner.text.strip()
    start = inner.text.index(stripped)
    return _Group(
        inner.bracket + inner.text[:start],
        split_sentences(stripped, inner.nodes),
        inner.text[start + len(stripped) :] + inner.closing,
    )


def _apostrophe(before: str, after: str) -> bool:
    return _in_word(before) or after.isspace()


def _in_word(character: str) -> bool:
    return character.isalnum() or character == NODE
