"""One text per item from a template that copes with missing fields."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from recbole_mars.features.catalogue.prompt_sentences import (
    NODE,
    Sentence,
    fill_sentences,
    split_sentences,
)

__all__ = ["PromptTemplate"]


@dataclass(frozen=True)
class PromptTemplate:
    """A text with fields in braces, filled in for each item; what has no value leaves no trace.

    >>> prompt = PromptTemplate("{title} ({year}, {country}). Genre: {genre}. {plot}")
    >>> prompt.fields
    ('title', 'year', 'country', 'genre', 'plot')
    >>> film = {"title": ["Jaws"], "year": ["1975"], "country": ["US"], "plot": ["A shark!"]}
    >>> prompt.render({**film, "genre": ["Horror"]})
    ['Jaws (1975, US). Genre: Horror. A shark!']

    Where every field has a value, it is the template with the values in place. A value is missing
    if it is None, NaN or blank. Then

    - its brackets, quotes or tags (`<year>{year}</year>`) go, if nothing in them has a value;
    - its label goes, the words between it and the field or the sentence before it, and words
      between it and a following comma or stop;
    - the mark between it and its neighbour goes (`, ; : / |`, a dash), the sentence's stop stays;
    - a sentence, or line, goes with its stop if none of its fields has a value; one without
      fields stays;
    - all is '', a missing text, if no field has a value.

    >>> prompt.render({**film, "year": [None], "genre": [" "]})
    ['Jaws (US). A shark!']
    >>> prompt.render({**film, "year": [None], "country": [""], "genre": ["Horror"]})
    ['Jaws. Genre: Horror. A shark!']

    Values are stripped and stand as they are otherwise; the template's full stop is left out
    after a value that ends in `.`, `!`, `?` or `…`.

    >>> PromptTemplate("{title}. {plot}.").render({"title": ["Mr. ..."], "plot": ["{x} - (). ,"]})
    ['Mr. ... {x} - (). ,.']

    `{{` and `}}` are braces. Raises ValueError if the template has no field, or a field is not
    the plain name of a column.
    """

    template: str

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError(
                f"the prompt must name a column in braces, got {self.template!r}; "
                f"write for example '{{title}}. {{plot}}'"
            )

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The columns that the template names, each once, in order."""
        names = (name for _, name in _parse(self.template) if name is not None)
        return tuple(dict.fromkeys(names))

    def render(self, columns: Mapping[str, Sequence[str]]) -> list[str]:
        """The text of each item.

        columns: name → a value per item, strings, or None or NaN if missing; those that the
        template does not name are not looked at.

        Raises ValueError if a column is unknown, columns differ in length, or a value is neither
        a string nor missing.
        """
        for field in self.fields:
            if field not in columns:
                close = difflib.get_close_matches(field, list(columns), n=1)
                hint = f"did you mean {close[0]!r}?" if close else "correct the prompt"
                raise ValueError(
                    f"the prompt's field {field!r} must be a column, "
                    f"the columns are {list(columns)}; {hint}"
                )
        lengths = {field: len(columns[field]) for field in self.fields}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns must have one length, got {lengths}; give a value per item")
        cleaned = [_clean(field, columns[field]) for field in self.fields]
        return [
            fill_sentences(self._sentences, dict(zip(self.fields, row))) for row in zip(*cleaned)
        ]

    @cached_property
    def _sentences(self) -> tuple[Sentence, ...]:
        parsed = _parse(self.template)
        text = "".join(literal + (NODE if name is not None else "") for literal, name in parsed)
        return split_sentences(text, [name for _, name in parsed if name is not None])


def _parse(template: str) -> list[tuple[str, str | None]]:
    """Literal text and the name of the field after it; None after the last."""
    if NODE in template:
        raise ValueError(f"the prompt must hold no NUL character, got {template!r}; remove it")
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"the prompt {template!r} must have its braces in pairs, found: {error}; "
            f"write {{{{ and }}}} for braces that are text"
        ) from error
    for _, name, spec, conversion in parsed:
        if name is not None and (not name or spec or conversion or re.search(r"[.\[\]]", name)):
            whole = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(
                f"a field of the prompt must be the plain name of a column, "
                f"got {{{whole}}} in {template!r}; format or rename the column beforehand, "
                f"and write {{{{ and }}}} for braces that are text"
            )
    return [(literal, name) for literal, name, _, _ in parsed]


def _clean(name: str, column: Sequence[str]) -> list[str]:
    """The values stripped, '' where they are missing."""
    if isinstance(column, str):
        raise ValueError(f"column {name!r} must hold a value per item, got the text {column!r}")
    cleaned = []
    for row, value in enumerate(column):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            value = ""
        if not isinstance(value, str):
            raise ValueError(
                f"column {name!r} must hold strings, got {value!r} in row {row}; "
                f"convert the column to strings"
            )
        cleaned.append(value.strip())
    return cleaned
