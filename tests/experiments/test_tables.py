from __future__ import annotations

import math

import pytest

from recbole_mars.evaluation import PairedResult
from recbole_mars.experiments.comparison import RunCurves
from recbole_mars.experiments.tables import (
    comparison_rows,
    estimate,
    gain_of,
    headline,
    markdown_table,
    model_names,
    reservations,
    side_by_side,
    verdict,
)

NAN = math.nan


def run(name, auc, seed=1, **more):
    test = {"auc": auc, "log_loss": 0.5, "auc_low": 0.6, "auc_mid": 0.7, "auc_high": 0.8, **more}
    intervals = {key: (value - 0.01, value + 0.02) for key, value in test.items()}
    return RunCurves(name, seed, [0.7], [0.7], test, intervals, 1.0)


def pair(base=0.75, measured=0.76, **more):
    return [run("DIN", base), run("MARS", measured, **more)]


GAIN = {"all": PairedResult(0.01, 0.002, 0.018, 0.0123)}


def test_numbers_are_those_given():
    gains = {**GAIN, "low": PairedResult(-0.02, -0.03, -0.01, 0.0004)}
    header, rows = comparison_rows(pair(auc_low=0.58, log_loss=0.49), gains)
    assert header == ["", "DIN", "MARS", "MARS - DIN", "p"]
    assert rows == [
        [
            "AUC, all users",
            "0.7500 [0.7400, 0.7700]",
            "0.7600 [0.7500, 0.7800]",
            "+0.0100 [+0.0020, +0.0180]",
            "0.012",
        ],
        [
            "  low-active",
            "0.6000 [0.5900, 0.6200]",
            "0.5800 [0.5700, 0.6000]",
            "-0.0200 [-0.0300, -0.0100]",
            "<0.001",
        ],
        ["  mid-active", "0.7000 [0.6900, 0.7200]", "0.7000 [0.6900, 0.7200]", "+0.0000", "n/a"],
        ["  high-active", "0.8000 [0.7900, 0.8200]", "0.8000 [0.7900, 0.8200]", "+0.0000", "n/a"],
        ["log loss", "0.5000 [0.4900, 0.5200]", "0.4900 [0.4800, 0.5100]", "-0.0100", ""],
        ["RelaImpr", "", "", "+4.00 %", ""],
    ]


def test_plain_table_is_aligned_plain_and_fits_the_terminal():
    groups = ("all", "low", "mid", "high")
    gains = {group: PairedResult(-0.0212, -0.0312, -0.0112, 0.0001) for group in groups}
    text = side_by_side(pair(), gains)
    lines = text.splitlines()
    assert len(lines) == 8
    assert max(map(len, lines)) <= 100
    assert text.isascii()
    assert "\x1b" not in text
    columns = [lines[0].index(name) for name in ("DIN", "MARS", "MARS - DIN")]
    assert all(line[column - 1] == " " != line[column] for line in lines[:7] for column in columns)


def test_undefined_is_said():
    runs = [run("DIN", 0.75, auc_low=NAN), run("MARS", 0.76, auc_low=NAN)]
    _, rows = comparison_rows(runs, {**GAIN, "low": None})
    assert rows[1] == ["  low-active", "n/a", "n/a", "n/a", "n/a"]
    del runs[1].test["auc_low"]  # not measured at all
    assert comparison_rows(runs, GAIN)[1][1] == rows[1]
    assert "For low-active users an AUC is undefined." in reservations(runs, GAIN)


@pytest.mark.parametrize("base", [0.5, 0.49, NAN])
def test_no_rela_impr_over_a_base_without_merit(base):
    _, rows = comparison_rows(pair(base, 0.6), {})
    assert rows[-1] == ["RelaImpr", "", "", "n/a", ""]


def test_seeds_are_averaged():
    runs = [run("DIN", 0.70, 1), run("MARS", 0.74, 1), run("DIN", 0.72, 2), run("MARS", 0.71, 2)]
    assert estimate(runs, "DIN", "auc") == pytest.approx((0.71, 0.70, 0.73))
    assert gain_of(runs, {}, "all").difference == pytest.approx(0.015)
    assert headline(runs, GAIN).endswith("with 2 seeds.")
    assert reservations(runs, GAIN)[1] == "MARS is ahead in 1 of 2 seeds."


@pytest.mark.parametrize(
    ("measured", "gain", "sentence"),
    [
        (
            0.76,
            PairedResult(0.01, 0.002, 0.018, 0.012),
            "MARS is +4.00 % RelaImpr over DIN (AUC 0.7600 against 0.7500), "
            "p = 0.012: significantly better with one seed.",
        ),
        (
            0.74,
            PairedResult(-0.01, -0.018, -0.002, 0.0004),
            "MARS is -4.00 % RelaImpr over DIN (AUC 0.7400 against 0.7500), "
            "p < 0.001: significantly worse with one seed.",
        ),
        (
            0.751,
            PairedResult(0.001, -0.002, 0.004, 0.31),
            "MARS is +0.40 % RelaImpr over DIN (AUC 0.7510 against 0.7500), "
            "p = 0.310: not significant with one seed.",
        ),
        (
            0.76,
            None,
            "MARS is +4.00 % RelaImpr over DIN (AUC 0.7600 against 0.7500), "
            "p undefined: no conclusion with one seed.",
        ),
        (NAN, GAIN["all"], "MARS cannot be compared with DIN: an AUC is undefined."),
    ],
)
def test_headline(measured, gain, sentence):
    assert headline(pair(0.75, measured), {"all": gain}) == sentence


def test_headline_over_a_base_without_merit_counts_in_auc():
    assert headline(pair(0.5, 0.52), {}).startswith("MARS is +0.0200 AUC over DIN")


def test_reservations_of_one_seed():
    gains = {**GAIN, "low": PairedResult(-0.02, -0.05, 0.01, 0.2)}
    assert reservations(pair(), gains) == [
        "For low-active users: -0.0200 AUC, p = 0.200: not significant.",
        "One training of each: p covers the chance in the test impressions, not in training.",
    ]
    assert len(reservations(pair(), {})) == 1  # without p there is nothing to say about it


@pytest.mark.parametrize(
    ("difference", "p", "expected"),
    [
        (0.1, 0.049, "better"),
        (-0.1, 0.049, "worse"),
        (0.1, 0.05, "open"),
        (0.0, 0.01, "open"),
        (0.1, NAN, "undefined"),
        (NAN, 0.01, "undefined"),
    ],
)
def test_verdict(difference, p, expected):
    assert verdict(PairedResult(difference, NAN, NAN, p)) == expected


def test_gain_without_p():
    gain = gain_of(pair(), {"all": PairedResult(0.01, 0.0, 0.02, None)}, "all")
    assert gain[:3] == (0.01, 0.0, 0.02)
    assert math.isnan(gain.p_value)


@pytest.mark.parametrize("names", [[], ["DIN"], ["DIN", "MARS", "DIEN"]])
def test_two_models_are_compared(names):
    with pytest.raises(ValueError, match="runs must be of two models, the base first, got"):
        model_names([run(name, 0.7) for name in names])


def test_markdown_table():
    rows = [["a|b", "1\n2"], ["", "x"]]
    assert markdown_table(rows, ["one", "two"]).splitlines() == [
        "| one | two |",
        "| --- | --- |",
        r"| a\|b | 1 2 |",
        "|  | x |",
    ]
