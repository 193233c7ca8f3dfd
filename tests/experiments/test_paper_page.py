from __future__ import annotations

import csv
import math
import re
import shlex

import pytest
from paper_records import CONFIG, record, runs, scored_runs, write
from test_report import HOSTILE, Outline

from recbole_mars.experiments.paper_report import figures, write_paper_report
from recbole_mars.experiments.paper_report.results import read_results
from recbole_mars.experiments.paper_report.summary import (
    doubts,
    negatives,
    overall_verdict,
    reproduction,
    summary,
)

THETA = {"groups": ["sensitivity"], "config": {**CONFIG, "mars_theta": 0.9}}
BLIND = {"groups": ["table-3"], "config": {**CONFIG, "mars_use_text": False}}


def full(folder):
    """Records of everything, scores among them; no spec."""
    low = {"users": 6040, "items": 3706}
    for dataset in ("ml-1m", "amazon-toys"):
        more = {"dataset": dataset, "seeds": (1, 2), "impressions": 300}
        scored_runs(folder, "DIN", 0.0, statistics=low, **more)
        scored_runs(folder, "CMR", 0.1, **more)
        scored_runs(folder, "MARS", 0.5, **more)
        scored_runs(folder, "top k", 0.4, groups=["padding"], **more)
        scored_runs(folder, "blind", 0.3, **more, **BLIND)
        scored_runs(folder, "theta 0.9", 0.45, **more, **THETA)
        scored_runs(folder, "idea", 0.2, groups=["ideas"], **more)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = full(tmp_path_factory.mktemp("paper"))
    assert write_paper_report(folder, samples=20) == folder / "report.html"
    return folder


def results(folder, *records):
    return read_results(write(folder, *records))


def text_of(folder):
    page = (folder / "report.html").read_text("utf-8")
    return page, " ".join(Outline(page).text.split())


def test_page_is_well_formed_and_needs_nothing_else(folder):
    page, _ = text_of(folder)
    outline = Outline(page)
    assert outline.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert re.findall(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)) == []
    assert re.findall(r"url\((?!#)|@import|\b(?:href|src)=\"(?!#)", page) == []
    assert len(outline.ids) == len(set(outline.ids)) > 0
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", page)) <= set(outline.ids)


def test_page_has_every_section_with_its_figures(folder):
    page, text = text_of(folder)
    for title in (
        "Table 1: the data",
        "Table 2: all methods against DIN",
        "MARS against the best baseline",
        "Table 3: ablations and decisions, against MARS",
        "Figure 4: padding strategies",
        "Who gains: AUC by activity",
        "Gain by length of the own history",
        "Sensitivity",
        "Also: ideas",
        "What it costs",
        "What has been run",
        "All 28 runs",
        "What did not help",
        "Do it again",
    ):
        assert title in text
    # Two settings each: gains of Table 2, Table 3, padding and ideas, activity, lengths, seeds;
    # sensitivity has a figure a parameter.
    assert page.count("<svg") == 7 * 2 + 1
    assert "Nothing recorded yet" not in text
    assert f"python -m recbole_mars.experiments report {folder.as_posix()}" in text
    assert "experiments run" not in text  # without a spec.yaml


def test_every_table_is_in_markdown_and_csv(folder):
    names = {file.stem for file in (folder / "tables").iterdir()}
    assert names == {
        *("table-1", "table-2", "table-3", "figure-4", "best-baseline", "activity", "cost"),
        *("history-length", "sensitivity", "group-ideas", "progress", "runs"),
    }
    for file in (folder / "tables").iterdir():
        rows = list(csv.reader(file.open(encoding="utf-8")))
        assert len({len(row) for row in rows}) == 1
        assert len(rows) > 1
    markdown = (folder / "results.md").read_text("utf-8")
    assert markdown.startswith(f"# {folder.name}\n\n## Summary\n\n- Against DIN, MARS is ")
    assert "### ml-1m, leave-one-out" in markdown
    assert "All 28 runs" not in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) > 50


def test_everything_is_made_again_the_same_and_without_scores(folder, tmp_path):
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.suffix != ".npz"}
    for file in (folder / "scores").iterdir():
        file.rename(tmp_path / file.name)
    write_paper_report(folder, samples=20)
    assert {f: f.read_bytes() for f in before} == before
    assert "scores not kept" not in before[folder / "report.html"].decode()
    for file in tmp_path.iterdir():
        file.rename(folder / "scores" / file.name)


def test_one_record_is_enough(tmp_path):
    write(tmp_path, record(method="DIN", test={"auc": None}))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "group-old.csv").write_text("of a group that is no more")
    write_paper_report(tmp_path)
    _, text = text_of(tmp_path)
    assert "No conclusion" in text
    assert "No setting has records of the measured method yet" in text
    assert text.count("Nothing recorded yet.") == 6
    assert "the measured method against the best baseline" in text
    assert "scores not kept" not in text
    assert not (tmp_path / "significance.json").exists()
    assert not (tmp_path / "tables" / "table-3.csv").exists()
    assert not (tmp_path / "tables" / "group-old.csv").exists()


def test_what_needs_scores_says_so(tmp_path):
    write_paper_report(write(tmp_path, *runs("DIN"), *runs("MARS", 0.01)))
    assert "n/a (scores not kept): the gain by history length" in text_of(tmp_path)[1]


def test_what_was_never_planned_is_not_missed(tmp_path):
    place = {"datasets": {"ml-1m": {}}, "splits": {"leave-one-out": {"split": {"RS": [8, 1, 1]}}}}
    spec = {**place, "methods": {"DIN": {}, "MARS": {}}, "seeds": [1, 2]}
    spec["groups"] = {"table-2": ["DIN", "MARS"]}
    write_paper_report(write(tmp_path, *runs("DIN"), *runs("MARS", 0.01), spec=spec))
    _, text = text_of(tmp_path)
    for title in ("Table 3", "Figure 4", "Sensitivity", "against the best baseline"):
        assert title not in text
    spec["groups"]["padding"] = ["DIN", "MARS"]
    write_paper_report(write(tmp_path, spec=spec))
    _, text = text_of(tmp_path)
    assert "Figure 4" in text
    assert "Nothing recorded yet." in text


def test_hostile_names_are_only_text(tmp_path):
    found = record(method="DIN", commit=HOSTILE, groups=["table-2", HOSTILE])
    method = HOSTILE.replace("/", "")  # a file is named after it
    write(tmp_path, found, {**found, "method": method, "machine": HOSTILE})
    write_paper_report(tmp_path)
    page, text = text_of(tmp_path)
    assert Outline(page).tags.isdisjoint({"b", "script"})
    assert text.count(HOSTILE) == 3  # a group, commit and machine
    assert text.count(method) > 4


def test_nothing_is_written_if_something_is_wrong(tmp_path):
    full(tmp_path)
    (tmp_path / "scores" / "ml-1m.leave-one-out.MARS.2.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"MARS\.2\.npz is damaged"):
        write_paper_report(tmp_path, samples=5)
    assert {file.name for file in tmp_path.iterdir()} == {"records", "scores"}


def test_summary_says_what_is_significant_and_what_is_not(tmp_path):
    toys = {"dataset": "amazon-toys"}
    found = results(
        tmp_path,
        *runs("DIN"),
        *runs("CMR", 0.0196),
        *runs("MARS", 0.02),
        *runs("DIN", **toys),
        *runs("MARS", 0.0003, **toys),
        *runs("DIN", dataset="own"),
        *runs("MARS", -0.01, dataset="own"),
        *runs("DIN", dataset="single", seeds=(1,)),
        *runs("MARS", 0.02, dataset="single", seeds=(1,)),
    )
    first, ml, toys_said, own, single = summary(found)
    assert first == (
        "Against DIN, MARS is significantly better in 1 of 4 settings, significantly worse in 1, "
        "and not significantly different in 1; 1 allow no conclusion (paired t-test over seeds, "
        "p < 0.05, each setting by itself)."
    )
    assert ml == (
        "ml-1m, leave-one-out: MARS is +10.00 % RelaImpr over DIN (AUC 0.7200 against 0.7000, "
        "p < 0.001: significantly better, 5 seeds); +0.0004 AUC against CMR, the best baseline on "
        "validation (p undefined: no conclusion)."
    )
    assert "+0.15 % RelaImpr" in toys_said
    assert "not significant, 5 seeds" in toys_said
    assert "-5.00 % RelaImpr" in own
    assert "significantly worse" in own
    assert "p undefined: no conclusion, one seed" in single
    assert overall_verdict(found) == "worse"


def test_summary_names_what_validation_would_choose(tmp_path):
    """Also where it is neither the method of the paper nor one of its baselines."""
    found = results(tmp_path, *runs("DIN"), *runs("MARS", 0.01), *runs("mine", 0.02))
    assert summary(found)[-1] == (
        "ml-1m, leave-one-out: of all methods validation would choose mine, which is +10.00 % "
        "RelaImpr over DIN (AUC 0.7200 against 0.7000, p < 0.001: significantly better, 5 seeds)."
    )


@pytest.mark.parametrize(
    ("gain", "judged"), [(0.02, "better"), (0.0003, "open"), (-0.02, "worse"), (0.0, "undefined")]
)
def test_badge(tmp_path, gain, judged):
    assert overall_verdict(results(tmp_path, *runs("DIN"), *runs("MARS", gain))) == judged


def test_what_did_not_help_is_told():
    row = {"dataset": "d", "split": "s", "variant": "", "against": "DIN", "p_t": 0.5}
    rows = [
        {**row, "method": "DIN", "difference": math.nan},
        {**row, "method": "good", "difference": 0.1, "p_t": 0.01},
        {**row, "method": "open", "difference": 0.1},
        {**row, "method": "bad", "difference": -0.1, "p_t": 0.0001},
        {**row, "method": "single", "difference": 0.1, "p_t": math.nan},
        {**row, "method": "alone", "difference": math.nan, "p_t": math.nan},
    ]
    assert negatives(rows) == [
        "open on d, s: +0.1000 AUC (p = 0.500).",
        "bad on d, s: -0.1000 AUC (p < 0.001), significantly worse.",
        "single on d, s: +0.1000 AUC (no p: one seed, or no spread).",
        "alone on d, s: n/a AUC (no seed in common).",
    ]


def test_mixed_origins_are_told(tmp_path):
    base = runs("DIN")
    assert doubts(results(tmp_path / "a", *base)) == []
    found = results(
        tmp_path / "b",
        *base,
        record(commit="d00d", version=None, machine="pencil", data_fingerprint="other"),
    )
    assert doubts(found) == [
        "The runs come from 2 commits: c0ffee, d00d.",
        "The runs come from 2 versions: unknown, 0.1.0.",
        "They ran on 2 machines: times are not comparable throughout.",
        "ml-1m, leave-one-out: the runs read different data or features, see all runs.",
    ]
    told = reproduction(found)
    assert ("commit", "c0ffee (5 runs)") in told
    assert ("data of ml-1m", "other (1 run)") in told


SPEC = {
    "base": "DIN",
    "settings": {"epochs": 4, "learning_rate": "1e-3", "text_features": "{data_path}/x"},
    "datasets": {"ml-1m": {}},
    "splits": {"leave-one-out": {"split": {"RS": [8, 1, 1]}, "group_by": None, "mode": "labeled"}},
    "methods": {"DIN": {}, "MARS": {"mars_theta": 0.8}},
    "seeds": [1, 2, 3],
    "search": {"trials": 1, "seed": 9, "space": {"embedding_size": [8]}},
}
RESOLVED = {
    "epochs": 4,
    "learning_rate": 0.001,
    "mars_theta": 0.8,
    "embedding_size": 8,
    "text_features": ".../x",
    "eval_args": {
        "split": {"RS": [8, 1, 1]},
        "group_by": None,
        "order": "RO",
        "mode": {"valid": "labeled", "test": "labeled"},
    },
}


def with_config(method, seed, **config):
    return record(method=method, seed=seed, config={**RESOLVED, "seed": seed, **config})


def test_one_configuration_is_no_doubt(tmp_path):
    """Nor are resolved values, files, newer keys, seeds, and what a search chose."""
    found = [with_config("DIN", seed, embedding_size=16) for seed in (1, 2)]
    found += [with_config("MARS", 1), with_config("MARS", 2, newer_key=1, text_features="/y")]
    assert doubts(read_results(write(tmp_path, *found, spec=SPEC))) == []


def test_runs_of_several_configurations_are_told(tmp_path):
    """As after a change of the YAML and a new start of a part of it."""
    found = [with_config("MARS", 1, epochs=1), with_config("MARS", 2), with_config("MARS", 3)]
    folder = write(tmp_path, with_config("DIN", 1, epochs=1), *found, spec=SPEC)
    assert doubts(read_results(folder)) == [
        "ml-1m, leave-one-out: the seeds of MARS differ in epochs (1 in 1 run, 4 in 2 runs); their "
        "mean is of no one configuration. Start the experiment again.",
        "2 runs of DIN, MARS had epochs 1, spec.yaml has 4. Start the experiment again.",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mars_theta": 0.5}, "mars_theta 0.5, spec.yaml has 0.8"),
        ({"learning_rate": 0.01}, "learning_rate 0.01, spec.yaml has 1e-3"),
        ({"eval_args": {**RESOLVED["eval_args"], "split": {"RS": [6, 2, 2]}}}, "eval_args"),
        ({"eval_args": {**RESOLVED["eval_args"], "mode": {"valid": "uni10"}}}, "eval_args"),
    ],
)
def test_what_the_yaml_fixes_is_compared(tmp_path, change, said):
    found = [with_config("DIN", 1), with_config("MARS", 1, **change)]
    (doubt,) = doubts(read_results(write(tmp_path, *found, spec=SPEC)))
    assert doubt.startswith("1 run of MARS had ")
    assert said in doubt


def test_it_can_be_done_again_as_it_is_said(tmp_path):
    folder = write(tmp_path / "my results", *runs("DIN"), spec={**SPEC, "name": "other"})
    told = dict(reproduction(read_results(folder)))
    words = shlex.split(told["run"])
    assert words[:4] == ["python", "-m", "recbole_mars.experiments", "run"]
    assert words[4:] == [f"{folder}/spec.yaml", "--output", str(folder), "--data_path", "DIR"]
    assert shlex.split(told["tables and page"])[4:] == [str(folder)]


def test_a_table_by_itself_has_the_whole_width(tmp_path):
    """A grid of one would cut it."""
    write_paper_report(write(tmp_path, *runs("DIN")))
    page, _ = text_of(tmp_path)
    assert '<div class="grid"><div class="card">' not in page
    write_paper_report(write(tmp_path, *runs("DIN", dataset="own", statistics={"users": 3})))
    write_paper_report(write(tmp_path, *runs("DIN", dataset="two", statistics={"users": 3})))
    page, _ = text_of(tmp_path)
    assert page.count('<div class="grid"><div class="card">') == 1  # Table 1


def test_figures_write_their_numbers(tmp_path):
    found = results(tmp_path, *runs("DIN"), *runs("CMR", -0.01), *runs("MARS", 0.02))
    (setting,) = found.settings()
    svg = figures.gains(found, setting, ["DIN", "CMR", "MARS"], "DIN")
    assert "+10.00 %" in svg
    assert "\N{MINUS SIGN}5.00 %" in svg
    assert "ml-1m, leave-one-out" in svg
    assert "0.7200" in figures.seeds(found, setting, ["DIN", "MARS"])
    assert figures.gains(found, setting, ["DIN"], "DIN") == ""
    assert figures.seeds(found, setting, ["other"]) == ""
    assert figures.history_lengths(found, setting, []) == ""
    assert "all users" in figures.activity(found, setting)
