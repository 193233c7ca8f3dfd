"""A prompt says what an item has, and not a trace of what it has not."""

from __future__ import annotations

import doctest
import itertools
import random

import numpy as np
import pandas as pd
import pytest

from recbole_mars.features import PromptTemplate
from recbole_mars.features.catalogue import prompts

FILM = "{title} ({year}). {genre}. {plot}"


def render(template: str, **values: object) -> str:
    columns = {name: [value] for name, value in values.items()}
    [text] = PromptTemplate(template).render(columns)
    return text


def test_examples_of_the_docstrings() -> None:
    failed, tried = doctest.testmod(prompts)
    assert (failed, tried >= 7) == (0, True)


@pytest.mark.parametrize(
    ("present", "text"),
    [
        ("tygp", "Toy Story (1995). Animation. A cowboy."),
        ("tyg", "Toy Story (1995). Animation."),
        ("typ", "Toy Story (1995). A cowboy."),
        ("tgp", "Toy Story. Animation. A cowboy."),
        ("ygp", "(1995). Animation. A cowboy."),
        ("ty", "Toy Story (1995)."),
        ("tp", "Toy Story. A cowboy."),
        ("gp", "Animation. A cowboy."),
        ("t", "Toy Story."),
        ("y", "(1995)."),
        ("p", "A cowboy."),
        ("", ""),
    ],
)
@pytest.mark.parametrize("missing", ["", " \n", None, float("nan"), np.float64("nan")])
def test_missing_fields(present: str, text: str, missing: object) -> None:
    film = {"title": "Toy Story", "year": "1995", "genre": "Animation", "plot": "A cowboy."}
    film = {name: value if name[0] in present else missing for name, value in film.items()}
    assert render(FILM, **film) == text


@pytest.mark.parametrize(
    ("template", "texts"),  # with a and b, with a, with b
    [
        ("Title: {a}. Plot: {b}", ("Title: A. Plot: B", "Title: A.", "Plot: B")),
        ("Title: {a}, Plot: {b}.", ("Title: A, Plot: B.", "Title: A.", "Plot: B.")),
        ("Title: {a} Plot: {b}", ("Title: A Plot: B", "Title: A", "Plot: B")),
        ("Title: {a}\nPlot: {b}\n", ("Title: A\nPlot: B", "Title: A", "Plot: B")),
        ("Title: {a}.\n\nPlot: {b}.", ("Title: A.\n\nPlot: B.", "Title: A.", "Plot: B.")),
        ("- {a}\n- {b}", ("- A\n- B", "- A", "- B")),
        ("{a} ({b})", ("A (B)", "A", "(B)")),
        ("{a} ({b}): x", ("A (B): x", "A", "(B): x")),
        ('"{a}" [{b}].', ('"A" [B].', '"A".', "[B].")),
        ("'{a}' by «{b}»!", ("'A' by «B»!", "'A'!", "by «B»!")),
        ("“{a}” ({{{b}}})", ("“A” ({B})", "“A”", "({B})")),
        ("({a}, {b}).", ("(A, B).", "(A).", "(B).")),
        ("( {a} / {b} )?", ("( A / B )?", "( A )?", "( B )?")),
        ("({a} (made {b}))", ("(A (made B))", "(A)", "((made B))")),
        ("{a} - {b}", ("A - B", "A", "B")),
        ("{a}/{b}", ("A/B", "A", "B")),
        ("{a}: {b}", ("A: B", "A", "B")),
        ("{a}.{b}", ("A.B", "A", "B")),
        ("{a}{b}", ("AB", "A", "B")),
        ("{a} by {b}.", ("A by B.", "A.", "by B.")),
        ("{a} dollars, year {b}.", ("A dollars, year B.", "A dollars.", "year B.")),
        ("{a} dollars - {b} stars", ("A dollars - B stars", "A dollars", "B stars")),
        ("A sci-fi. {a}. {b}.", ("A sci-fi. A. B.", "A sci-fi. A.", "A sci-fi. B.")),
        ("{a}. {b}. The end.", ("A. B. The end.", "A. The end.", "B. The end.")),
        ("It's {a}'s (sic) {b}", ("It's A's (sic) B", "It's A", "'s (sic) B")),
        (":( {a} ) {b}", (":( A ) B", ":( A )", "B")),
        (":-) {a}, {b}", (":-) A, B", ":-) A", "B")),
        ("({a}, {b}", ("(A, B", "(A", "B")),
        ("{a} {b} {a}", ("A B A", "A A", "B")),
        ("{a}。{b}！", ("A。B！", "A。", "B！")),  # noqa: RUF001
        ("《{a}》，{b}。", ("《A》，B。", "《A》。", "B。")),  # noqa: RUF001
        ('{{"t": "{a}", "p": "{b}"}}', ('{"t": "A", "p": "B"}', '{"t": "A"}', '{"p": "B"}')),
    ],
)
def test_what_goes_with_a_field(template: str, texts: tuple[str, str, str]) -> None:
    found = [render(template, a=a, b=b) for a, b in [("A", "B"), ("A", ""), ("", "B")]]
    assert found == list(texts)
    assert render(template, a="", b="") == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Help!", "Help! B."),
        ("Who?", "Who? B."),
        ("Mr.", "Mr. B."),
        ("So ...", "So ... B."),
        ("So…", "So… B."),
        ("a . ,  (). {b} {{", "a . ,  (). {b} {{. B."),
        ("  stripped \n", "stripped. B."),
        ("", "B."),
    ],
)
def test_values_stand_as_they_are(value: str, text: str) -> None:
    assert render("{a}. {b}.", a=value, b="B") == text


def test_only_a_full_stop_is_spared() -> None:
    assert render("{a}! ({b}.)", a="Mr.", b="B?") == "Mr.! (B?)"
    assert render("({a}). {b} dollars.", a="What?", b="1.") == "(What?). 1. dollars."
    assert render("{a}... {b}", a="So.", b="B") == "So.... B"


def test_a_full_item_reads_as_the_template() -> None:
    generator = random.Random(0)
    pieces = [*"..,,;:!?-'\"()[] \n/", " ", "It's", "x", ". ", "{{", "}}", "{a}", "{b}", "{c}"]
    values = {"a": "A", "b": "(B, b)", "c": "c: c"}
    for _ in range(3000):
        template = "".join(generator.choices(pieces, k=12)) + "{a}"
        assert render(template, **values) == template.format(**values).strip(), template


def test_no_trace_of_missing_fields() -> None:
    names = "abcd"
    template = "{a} ({b}, {c}): {d}. Say: “{c}”. [{a} - {b}], {d}!"
    for flags in itertools.product([True, False], repeat=4):
        text = render(template, **{n: n.upper() if f else "" for n, f in zip(names, flags)})
        assert not any(
            trace in text for trace in ("()", "[]", "“”", "  ", ", ,", ". .", " .", "(,")
        )
        assert text == text.strip()
        assert not text.startswith((",", ".", ":", "-"))
        assert {n for n, f in zip(names, flags) if f} == {n for n in names if n.upper() in text}


def test_items_and_columns() -> None:
    prompt = PromptTemplate("{b}, {movie title} {b}")
    assert prompt.fields == ("b", "movie title")
    columns = {"movie title": ["x", None, "z"], "b": ("1", "2", ""), "other": [5]}
    assert prompt.render(columns) == ["1, x 1", "2 2", "z"]
    assert prompt.render(pd.DataFrame({"b": ["1"], "movie title": ["x"]})) == ["1, x 1"]
    assert prompt.render({"b": [], "movie title": []}) == []
    assert prompt == PromptTemplate("{b}, {movie title} {b}")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", "must name a column in braces, got ''"),
        ("no {{field}}", "must name a column in braces"),
        ("{}", r"plain name of a column, got \{\}"),
        ("{a.real}", r"plain name of a column, got \{a\.real\}"),
        ("{a[0]}", r"got \{a\[0\]\}"),
        ("{a!r}", r"got \{a!r\} in '\{a!r\}'; format or rename"),
        ("{title:token_seq}", r"got \{title:token_seq\}"),
        ("{a", "must have its braces in pairs, found: expected '}' before end"),
        ("a}", r"must have its braces in pairs.*write \{\{ and \}\}"),
        ("{a}\0", "no NUL"),
    ],
)
def test_wrong_templates(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PromptTemplate(template)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"title": ["x"], "plots": ["y"]}, r"'plot' must be a column, .*did you mean 'plots'\?"),
        ({"title": ["x"]}, r"'plot' must be a column, the columns are \['title'\]; correct"),
        ({"title": ["x"], "plot": []}, r"one length, got \{'title': 1, 'plot': 0\}"),
        ({"title": ["x", 5], "plot": ["", ""]}, "'title' must hold strings, got 5 in row 1; conv"),
        ({"title": ["x"], "plot": [b"y"]}, "'plot' must hold strings, got b'y' in row 0"),
        ({"title": "x", "plot": "y"}, "'title' must hold a value per item, got the text 'x'"),
    ],
)
def test_wrong_columns(columns: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PromptTemplate("{title}. {plot}").render(columns)


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("<title>{a}</title> <plot>{b}</plot>", ("x", "y"), "<title>x</title> <plot>y</plot>"),
        ("<title>{a}</title> <plot>{b}</plot>", ("", "y"), "<plot>y</plot>"),
        ("<title>{a}</title> <plot>{b}</plot>", ("x", ""), "<title>x</title>"),
        ("<item>\n<t>{a}</t>\n<p>{b}</p>\n</item>", ("x", ""), "<item>\n<t>x</t>\n</item>"),
        ("<br>{a}, {b}", ("x", "y"), "<br>x, y"),
        ("{a} < {b} > c", ("x", "y"), "x < y > c"),
    ],
)
def test_tags(template: str, values: tuple[str, str], expected: str) -> None:
    columns = {"a": [values[0]], "b": [values[1]]}
    assert PromptTemplate(template).render(columns) == [expected]
