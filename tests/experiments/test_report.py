from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from recbole_mars.evaluation import PairedResult
from recbole_mars.experiments import figures
from recbole_mars.experiments.comparison import ComparisonData, RunCurves
from recbole_mars.experiments.report import write_report

FIGURES = (
    figures.gains,
    figures.alignment,
    figures.alignment_curves,
    figures.donors,
    figures.histories,
    figures.training_curves,
)
NONE = np.empty(0)
HOSTILE = "</script><b class=\"x\" onclick='y'>&amp; $a$ --> a very good data set"


def run(name, auc, **more):
    test = {"auc": auc, "log_loss": 0.5, "auc_low": 0.6, "auc_mid": math.nan, "auc_high": 0.8}
    intervals = {key: (value - 0.01, value + 0.01) for key, value in test.items()}
    return RunCurves(name, 7, [0.7, 0.6, 0.5], [0.71, 0.73, 0.72], {**test, **more}, intervals, 9.0)


def comparison(**changes):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 12, 5))
    given = {
        "dataset": "toy",
        "command": "compare --dataset toy",
        "version": "1.2.3",
        "runs": [run("DIN", 0.75), run("MARS", 0.76)],
        "gains": {"all": PairedResult(0.01, 0.002, 0.018, 0.012), "mid": None},
        "settings": {"mars_theta": 0.5, "threshold": {"rating": 4}},
        "statistics": {"users": 12345, "share": 0.123456, "cost": np.float64("nan"), "on": "cpu"},
        "history_before": np.array([0, 1, 2, 9]),
        "history_after": np.array([4, 6, 8, 99]),
        "text_points_before": points[0],
        "text_points_after": points[1],
        "image_points_before": points[2],
        "image_points_after": points[3],
        "donor_similarities": rng.uniform(0.5, 1, 20),
        "random_similarities": rng.uniform(-1, 1, 20),
        "alignment_curves": {"loss": [0.7, 0.6], "entropy": [], "other": [1.0, math.nan]},
    }
    return ComparisonData(**{**given, **changes})


EMPTY = comparison(
    runs=[replace(run(name, math.nan), train_loss=[], valid_auc=[], test={}) for name in "AB"],
    gains={},
    settings={},
    statistics={},
    history_before=NONE,
    history_after=NONE,
    text_points_before=NONE,
    text_points_after=NONE,
    image_points_before=NONE,
    image_points_after=NONE,
    donor_similarities=NONE,
    random_similarities=NONE,
    alignment_curves={},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_report(comparison(), tmp_path_factory.mktemp("report") / "new").parent


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    data = comparison(
        dataset=HOSTILE,
        command=HOSTILE,
        version=HOSTILE,
        runs=[run("DIN", 0.75), run(HOSTILE, 0.76)],
        settings={HOSTILE: HOSTILE},
        statistics={HOSTILE: HOSTILE},
        alignment_curves={HOSTILE: [1.0]},
    )
    return write_report(data, tmp_path_factory.mktemp("hostile")).read_text("utf-8")


class Outline(HTMLParser):
    """Checks that every element is closed in order; collects tags, ids and visible text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], set(), [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", ["page", "hostile_page"])
def test_page_is_well_formed_and_needs_nothing_else(name, request):
    text = request.getfixturevalue(name)
    outline = Outline(text)
    assert outline.tags.isdisjoint({"script", "link", "img", "iframe", "object", "b"})
    assert re.findall(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)) == []
    assert re.findall(r"url\((?!#)|@import|\b(?:href|src)=\"(?!#)", text) == []
    assert len(outline.ids) == len(set(outline.ids)) > 0
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text)) <= set(outline.ids)


def test_page_says_what_it_was_given(page):
    text = Outline(page).text
    for expected in (
        "MARS against DIN on toy",
        "Significant gain",
        "MARS is +4.00 % RelaImpr over DIN (AUC 0.7600 against 0.7500), p = 0.012",
        "+0.0100 [+0.0020, +0.0180]",
        "compare --dataset toy",
        "recbole_mars 1.2.3",
        "12,345",
        "0.1235",
        "n/a",
        "Configuration (2 settings)",
        "{'rating': 4}",
    ):
        assert expected in text
    assert '<tr><th scope="row" class="">MARS</th><td>7</td><td>0.7600</td><td>0.7300</td>' in page
    assert page.count("<svg") == page.count("<figcaption>") == len(FIGURES)
    assert "No figure" not in page


def test_hostile_names_are_only_text(hostile_page):
    text = Outline(hostile_page).text
    assert f"{HOSTILE} against DIN on {HOSTILE}" in text
    assert text.count(HOSTILE) > 15  # figures too show it as it is, without a formula


@pytest.mark.parametrize(
    ("gain", "badge"),
    [
        (PairedResult(0.01, 0.0, 0.02, 0.01), "Significant gain"),
        (PairedResult(-0.01, -0.02, 0.0, 0.01), "Significant loss"),
        (PairedResult(0.01, -0.01, 0.02, 0.2), "No significant difference"),
        (None, "No conclusion"),
    ],
)
def test_badge(gain, badge, tmp_path):
    text = write_report(replace(EMPTY, gains={"all": gain}), tmp_path).read_text("utf-8")
    assert f'<p class="badge">{badge}</p>' in text


def test_losses_have_a_minus_sign(tmp_path):
    data = replace(EMPTY, runs=[run("DIN", 0.75), run("MARS-2", 0.74)])
    text = write_report(data, tmp_path).read_text("utf-8")
    assert "MARS-2 is \N{MINUS SIGN}4.00 % RelaImpr" in text
    assert '<th scope="col">MARS-2 \N{MINUS SIGN} DIN</th>' in text


def test_nothing_to_show(tmp_path):
    text = write_report(EMPTY, tmp_path).read_text("utf-8")
    assert Outline(text).text.count("No figure:") == len(FIGURES)
    assert "<svg" not in text
    assert "B cannot be compared with A: an AUC is undefined." in text
    assert [figure(EMPTY) for figure in FIGURES] == [""] * len(FIGURES)


@pytest.mark.parametrize(
    ("figure", "fields"),
    [
        (figures.alignment, ["text_points_before"]),
        (figures.alignment, ["image_points_before", "image_points_after"]),
        (figures.donors, ["donor_similarities"]),
        (figures.donors, ["random_similarities"]),
        (figures.histories, ["history_before"]),
        (figures.histories, ["history_after"]),
    ],
)
def test_figure_needs_both_sides(figure, fields):
    assert figure(replace(comparison(), **dict.fromkeys(fields, NONE))) == ""


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_xml_in_the_colours_of_the_page(figure):
    svg = figure(comparison())
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--ink, #24292f)" in svg
    assert "metadata" not in svg


def test_alignment_tells_closeness():
    text = np.array([[3.0, 0.0], [0.0, 4.0]])
    units = np.eye(2)
    svg = figures.alignment(
        replace(
            EMPTY,
            text_points_before=units,
            image_points_before=units[::-1],
            text_points_after=text,
            image_points_after=text,
        )
    )
    # Before: the distances are 2 ** 0.5, 0, 0, 2 ** 0.5, so gamma ** 2 = 1 / 2, and exp(-2) = 0.14.
    assert "matched pairs: cosine 0.00, kernel 0.14" in svg
    assert "distance 1.41 (mismatched: 0)" in svg
    assert "matched pairs: cosine 1.00, kernel 1.00" in svg
    assert "distance 0 (mismatched: 5)" in svg
    # All points lie on one line, whose direction holds all the variance.
    assert svg.count("1st direction: 100 % of the variance") == 2
    assert svg.count("2nd direction: 0 %") == 2


@pytest.mark.parametrize("points", [np.ones((1, 2)), np.zeros((3, 4)), np.ones((900, 2))])
def test_alignment_of_equal_points(points):
    names = ("text_points_before", "image_points_before", "text_points_after", "image_points_after")
    svg = figures.alignment(replace(EMPTY, **dict.fromkeys(names, points)))
    assert svg.count("kernel 1.00") == 2
    assert ("(mismatched: n/a)" in svg) == (len(points) == 1)
    assert svg.count("<use") < 900  # of many items not all are drawn


def test_distributions_tell_their_medians():
    data = comparison(donor_similarities=np.array([0.9, 0.8, 0.7]), random_similarities=np.ones(1))
    assert "Median cosine: 0.80 for donors, 1.00 for random users" in figures.donors(data)
    assert "Median history: 1.5 own behaviours, 7 with borrowed" in figures.histories(data)


def test_gains_are_written_next_to_their_intervals():
    svg = figures.gains(comparison())
    assert svg.count("+0.0100") == 1  # all users, tested
    assert svg.count("+0.0000") == 2  # low- and high-active, not tested
    assert svg.count("n/a") == 1  # mid-active, undefined


@pytest.mark.parametrize("without", [{}, {"donor_similarities": NONE}])
def test_overview_shows_four_panels(without):
    data = comparison(**without)
    titles = [axes.get_title(loc="left") for axes in figures.overview(data).axes]
    assert any(title.startswith("After training") for title in titles)
    assert any(title.startswith("Gain in AUC") for title in titles)
    assert ("Training loss" in titles) == bool(without)  # takes the place of the missing one


def test_picture_is_not_blank(folder):
    picture = np.asarray(Image.open(folder / "overview.png").convert("RGB"))
    assert picture.shape[1] == 2200
    assert 0.005 < (picture < 250).any(axis=2).mean() < 0.5
    blank = np.asarray(Image.open(io.BytesIO(figures.png(figures.overview(EMPTY)))).convert("L"))
    assert (blank < 250).any()  # the headline is there without any panel


def test_the_same_data_gives_the_same_bytes(folder, tmp_path):
    write_report(comparison(), tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["overview.png", "report.html"]
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_old_report_survives_a_failure(tmp_path, monkeypatch):
    page = write_report(EMPTY, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(figure):
        raise RuntimeError

    monkeypatch.setattr(figures, "png", fail)
    with pytest.raises(RuntimeError):
        write_report(replace(EMPTY, dataset="other"), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert write_report(replace(EMPTY, dataset="other"), tmp_path) == page
    assert page.read_bytes() != before["report.html"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": [run("DIN", 0.7)]}, "runs must be of two models"),
        ({"history_after": np.array([1.0, math.nan])}, "history_after must be finite"),
        ({"text_points_after": np.ones((3, 5))}, r"points must be \(N, D\) of the same N items"),
        ({"text_points_after": np.ones(12)}, r"points must be \(N, D\) of the same N items"),
    ],
)
def test_refuses_data_that_cannot_be_drawn(changes, message):
    with pytest.raises(ValueError, match=message):
        comparison(**changes)
