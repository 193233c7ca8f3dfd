from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from paper_records import CONFIG, SEEDS, record, runs, write
from scipy import stats

from recbole_mars.data import InteractionLog
from recbole_mars.experiments.paper_report import dataset_statistics, studies
from recbole_mars.experiments.paper_report.comparisons import ablations, best_baselines, overall
from recbole_mars.experiments.paper_report.dmae_paper import DMAE_PAPER
from recbole_mars.experiments.paper_report.mars_paper import MARS_PAPER
from recbole_mars.experiments.paper_report.resampling import Resampled
from recbole_mars.experiments.paper_report.results import read_results
from recbole_mars.experiments.paper_report.sensitivity import sensitivity
from recbole_mars.experiments.paper_report.summary import summary
from recbole_mars.experiments.paper_report.table import NO_SCORES, Table, to_csv, to_markdown
from recbole_mars.experiments.tables import number


def made(folder, make, *records, spec=None, scores=True):
    results = read_results(write(folder, *records, spec=spec))
    return make(results, Resampled(results, folder)) if scores else make(results)


def only(rows, **wanted):
    (found,) = [row for row in rows if wanted.items() <= row.items()]
    return found


def p_of(gain, sd, n=5):
    return 2 * stats.t.sf(abs(gain) / (sd / math.sqrt(n)), n - 1)


OWN_SD = math.sqrt(2e-6 / 4)  # gains differ from their mean by 0.001, -0.001, 0, 0, 0


def test_table_2_by_hand(tmp_path):
    table = made(tmp_path, overall, *runs("DIN"), *runs("CMR", 0.0004), *runs("MARS", 0.02))
    base, cmr, mars = table.rows
    assert [row["method"] for row in table.rows] == ["DIN", "CMR", "MARS"]
    assert base["auc_mean"] == pytest.approx(0.7)
    assert base["auc_sd"] == pytest.approx(math.sqrt(10e-6 / 4))  # 2, 1, 0, 1, 2 thousandths
    assert math.isnan(base["p_t"])
    assert mars["difference"] == pytest.approx(0.02)
    assert mars["rela_impr"] == pytest.approx(10.0)  # 0.22 / 0.20
    reach = 2.7764451 * OWN_SD / math.sqrt(5)
    assert (mars["low"], mars["high"]) == pytest.approx((0.02 - reach, 0.02 + reach))
    assert mars["p_t"] == pytest.approx(p_of(0.02, OWN_SD))
    assert cmr["p_t"] == pytest.approx(p_of(0.0004, OWN_SD))
    assert mars["p_t_holm"] == pytest.approx(2 * mars["p_t"])  # of two comparisons the smaller
    assert cmr["p_t_holm"] == pytest.approx(cmr["p_t"])
    assert "makes 2 tested comparisons" in table.note
    assert (mars["paper_auc"], mars["paper_rela_impr"]) == (0.7813, 1.48)
    assert (base["paper_auc"], cmr["paper_auc"]) == (0.7772, 0.7754)
    (part,) = table.parts
    assert part.foreign == 2
    assert list(part.tones) == ["", "", "better"]
    assert part.rows[2] == [
        *("MARS", "5", "0.7200 ± 0.0021", "+10.00 %", "+0.0200 [+0.0191, +0.0209]", "<0.001 *"),
        *(NO_SCORES, "0.5000", "0.7813", "+1.48 %"),
    ]
    assert part.rows[0][3:] == ["+0.00 %", "", "", "", "0.5000", "0.7772", "+0.00 %"]


def test_papers_figures_stand_only_where_the_paper_has_them(tmp_path):
    other = {"split": "time"}
    ours = [*runs("DIN", **other), *runs("MARS", 0.1, **other)]
    toys = [*runs("DIN", dataset="amazon-toys"), *runs("better MARS", 0.1, dataset="amazon-toys")]
    own = [*runs("DIN", dataset="own"), *runs("MARS", 0.1, dataset="own")]
    table = made(tmp_path, overall, *ours, *toys, *own)
    assert [part.foreign for part in table.parts] == [0, 2, 0]
    assert only(table.rows, dataset="amazon-toys", method="better MARS")["paper_auc"] is None
    assert "Amazon: text only; other features and splits than the paper's" in table.note
    assert "paper_auc" not in only(table.rows, split="time", method="MARS")


def test_one_seed_has_no_spread_and_no_p(tmp_path):
    table = made(tmp_path, overall, *runs("DIN", seeds=(1,)), *runs("MARS", 0.02, seeds=(1,)))
    row = only(table.rows, method="MARS")
    assert math.isnan(row["auc_sd"])
    assert math.isnan(row["p_t"])
    assert math.isnan(row["p_t_holm"])
    assert table.parts[0].rows[1][2:7] == ["0.7230", "+10.40 %", "+0.0210", "n/a", NO_SCORES]
    assert "makes 0 tested comparisons" in table.note


@pytest.mark.parametrize(("base", "shown"), [(0.49, "n/a"), (0.509, "n/a"), (0.512, "+166.67 %")])
def test_a_base_hardly_better_than_chance_has_no_rela_impr(tmp_path, base, shown):
    table = made(tmp_path, overall, *runs("DIN", base=base), *runs("MARS", 0.02, base=base))
    assert table.parts[0].rows[1][3] == shown
    assert ("RelaImpr divides by AUC - 0.5: it is n/a" in table.note) == (shown == "n/a")


@pytest.mark.parametrize(
    ("metric", "name"),
    [("log_loss", "log loss"), ("user_auc", "user AUC"), ("request_auc", "request AUC")],
)
def test_other_metrics_have_a_column_where_they_are_defined(tmp_path, metric, name):
    others = {"auc": 0.71, "log_loss": None}
    plain = made(tmp_path, overall, record(method="DIN", test=others), record(test=others))
    assert name not in plain.parts[0].header
    test = {**others, "auc": 0.7, metric: 0.65}
    table = made(tmp_path, overall, record(method="DIN", test=test), record(test=others))
    assert table.parts[0].header[7] == name
    assert [row[7] for row in table.parts[0].rows] == ["0.6500", "n/a"]


def test_best_baseline_by_hand(tmp_path):
    table = made(
        tmp_path,
        best_baselines,
        *runs("DIN"),
        *runs("CMR", 0.01, valid={"auc": 0.6}),
        *runs("Random", 0.005, valid={"auc": 0.7}),
        *runs("MARS", 0.02),
    )
    (row,) = table.rows
    assert (row["against"], row["baseline_valid_auc"]) == ("Random", pytest.approx(0.7))
    assert row["difference"] == pytest.approx(0.015)
    assert math.isnan(row["p_t"])  # planted alike in every seed
    # Table 2 of the paper: MARS 0.7813, the best baseline on ML-1M is CMRSI with 0.7798.
    assert (row["paper_baseline"], row["paper_difference"]) == ("CMRSI", 0.0015)
    assert table.parts[0].rows[0][-1] == "+0.0015 (CMRSI)"


def test_another_method_can_be_the_measured_one(tmp_path):
    spec = {
        "base": "DIN",
        "measured": "mine",
        "datasets": {"ml-1m": {}},
        "splits": {"leave-one-out": {"split": {"LS": "valid_and_test"}}},
        "methods": {name: {} for name in ("DIN", "CMR", "MARS", "mine")},
        "seeds": list(SEEDS),
    }
    records = [*runs("DIN"), *runs("CMR", 0.01), *runs("MARS", -0.01), *runs("mine", 0.02)]
    table = made(tmp_path, best_baselines, *records, spec=spec)
    (row,) = table.rows
    assert (row["method"], row["difference"]) == ("mine", pytest.approx(0.01))
    assert "paper_baseline" not in row  # the paper's difference is that of its own method
    papers = {
        row["method"]: row.get("paper_auc") for row in made(tmp_path, overall, spec=spec).rows
    }
    assert papers == {"DIN": 0.7772, "CMR": 0.7754, "MARS": 0.7813, "mine": None}
    assert "mine is +10.00 % RelaImpr over DIN" in summary(read_results(tmp_path))[1]


def test_the_papers_column_is_dropped_where_it_would_be_empty(tmp_path):
    own = [*runs("DIN", dataset="own"), *runs("CMR", dataset="own"), *runs("MARS", dataset="own")]
    (part,) = made(tmp_path / "own", best_baselines, *own).parts
    assert (part.header[-1], part.foreign) == ("p, impressions", 0)
    assert len(part.rows[0]) == len(part.header)
    ml = [*runs("DIN"), *runs("CMR"), *runs("MARS")]
    (part,) = made(tmp_path / "both", best_baselines, *own, *ml).parts
    assert (part.header[-1], part.foreign) == ("paper difference", 1)
    assert [row[-1] for row in part.rows] == ["+0.0015 (CMRSI)", ""]


def test_table_3_refers_to_mars_and_finds_the_papers_rows_by_configuration(tmp_path):
    group = {"groups": ["table-3"]}
    blind = {**CONFIG, "mars_use_text": False}
    table = made(
        tmp_path,
        ablations,
        *runs("DIN"),
        *runs("MARS", 0.02),
        *runs("blind", 0.01, config=blind, **group),
        *runs("other", 0.01, config={**CONFIG, "mars_attention": "full"}, **group),
    )
    assert [row["method"] for row in table.rows] == ["MARS", "blind", "other"]
    mars, found, other = table.rows
    assert found["rela_impr"] == pytest.approx(100 * (0.21 / 0.22 - 1))
    assert (mars["paper_auc"], mars["paper_rela_impr"]) == (0.7813, 0.0)
    assert (found["paper_auc"], found["paper_rela_impr"]) == (0.7402, -14.61)
    assert other["paper_auc"] is None


def test_without_the_measured_method_there_is_nothing_to_ablate(tmp_path):
    records = [*runs("DIN"), *runs("blind", groups=["table-3", "sensitivity"])]
    assert made(tmp_path, ablations, *records).rows == []
    assert made(tmp_path, best_baselines, *records).rows == []
    assert made(tmp_path, sensitivity, *records, scores=False).rows == []


def test_sensitivity_reads_its_setting_from_the_configurations(tmp_path):
    group = {"groups": ["sensitivity"]}
    table = made(
        tmp_path,
        sensitivity,
        *runs("DIN"),
        *runs("MARS", 0.02),
        *runs("high", 0.01, config={**CONFIG, "mars_theta": 0.9}, **group),
        *runs("low", 0.03, config={**CONFIG, "mars_theta": 0.1, "learning_rate": 1}, **group),
        *runs("both", 0.03, config={**CONFIG, "mars_theta": 0.1, "mars_eta": 1}, **group),
        scores=False,
    )
    told = [(r["parameter"], r["value"], r["method"]) for r in table.rows]
    assert told == [
        ("mars_theta", 0.1, "low"),
        ("mars_theta", 0.8, "MARS"),
        ("mars_theta", 0.9, "high"),
    ]
    assert [row[1] for row in table.parts[0].rows] == ["0.1", "0.8 (own)", "0.9"]
    assert table.rows[0]["difference"] == pytest.approx(0.01)
    assert "both (mars_theta, mars_eta)" in table.note


def test_a_key_that_is_newer_than_some_records_is_no_difference(tmp_path):
    spec = {
        "datasets": {"ml-1m": {}},
        "splits": {"leave-one-out": {"split": {"LS": "valid_and_test"}}},
        "methods": {"DIN": {}, "MARS": {}, "high": {"like": "MARS", "mars_theta": 0.9}},
        "seeds": [1, 2, 3, 4, 5],
        "groups": {"sensitivity": {"methods": ["MARS", "high"]}, "main": {"methods": ["DIN"]}},
    }
    newer = {**CONFIG, "mars_theta": 0.9, "mars_bandwidth": "median", "ties": "file"}
    group = {"groups": ["sensitivity"]}
    records = [*runs("DIN"), *runs("MARS", 0.02), *runs("high", 0.01, config=newer, **group)]
    table = made(tmp_path, sensitivity, *records, spec=spec, scores=False)
    assert [(r["parameter"], r["value"]) for r in table.rows] == [
        ("mars_theta", 0.8),
        ("mars_theta", 0.9),
    ]
    spec["methods"]["high"]["mars_bandwidth"] = "median"  # planned: then it is one
    table = made(tmp_path, sensitivity, *records, spec=spec, scores=False)
    assert not table.rows
    assert "high (mars_theta, mars_bandwidth" in table.note


def test_activity_by_hand(tmp_path):
    low = [{"auc": 0.7, "auc_low": 0.6 + s / 100} for s in (1, 2, 3)]
    more = [
        {"auc": 0.7, "auc_low": 0.6 + s / 100 + g} for s, g in ((1, 0.02), (2, 0.03), (3, 0.04))
    ]
    base = [record(method="DIN", seed=i, test=test) for i, test in enumerate(low)]
    mars = [record(method="MARS", seed=i, test=test) for i, test in enumerate(more)]
    table = made(tmp_path, studies.activity, *base, *mars, scores=False)
    row = only(table.rows, method="MARS", users="low-active")
    assert row["difference"] == pytest.approx(0.03)
    assert row["rela_impr"] == pytest.approx(25.0)  # 0.15 / 0.12
    assert row["p_t"] == pytest.approx(p_of(0.03, 0.01, 3))
    assert table.parts[0].rows[1][1:4] == ["0.7000 (+0.0000)", "0.6500 (+0.0300, p 0.035)", "n/a"]


def test_cold_items_stand_beside_activity_where_they_are_known(tmp_path):
    tests = [{"auc": 0.7}, {"auc": 0.7, "auc_cold": 0.6}]
    records = [record(method=m, test=t) for m, t in zip(("DIN", "MARS"), tests)]
    (part,) = made(tmp_path, studies.activity, *records, scores=False).parts
    assert (part.header[-1], part.rows[1][-1]) == ("cold items", "0.6000")
    (part,) = made(tmp_path / "b", studies.activity, records[0], scores=False).parts
    assert part.header[-1] == "high-active"


def test_costs_are_told_relative_to_the_base(tmp_path):
    fast = {"seconds": {"total": 100.0, "training": 40.0}}
    slow = {"seconds": {"total": 150.0, "training": 60.0}, "peak_memory_mb": 500.0, "epochs": 4}
    of_all = (*runs("DIN", **fast), *runs("MARS", **slow))
    table = made(tmp_path, studies.costs, *of_all, scores=False)
    row = only(table.rows, method="MARS")
    assert (row["seconds_of_base"], row["peak_memory_mb_of_base"]) == (1.5, 0.5)
    assert table.parts[0].rows[1] == [
        *("MARS", "150", "1.50 times", "15.0", "3.00 times", "500", "0.50 times", "4.0")
    ]


def test_grid_counts_what_is_missing(tmp_path):
    spec = {
        "datasets": {"ml-1m": {}, "new": {}},
        "splits": {"leave-one-out": {"split": {"LS": "valid_and_test"}}},
        "methods": {"DIN": {}, "MARS": {}},
        "seeds": [1, 2, 3],
        "groups": {"table-2": {"methods": ["DIN", "MARS"]}},
    }
    records = [*runs("DIN", seeds=(1, 2, 3)), *runs("MARS", seeds=(1,)), record(method="old")]
    table = made(tmp_path, studies.grid, *records, spec=spec, scores=False)
    assert only(table.rows, dataset="ml-1m", method="MARS")["missing"] == "2 3"
    assert table.parts[0].header[1:] == ["ml-1m, leave-one-out", "new, leave-one-out"]
    assert table.parts[0].rows == [
        ["DIN", "3 / 3", "0 / 3"],
        ["MARS", "1 / 3", "0 / 3"],
        ["old", "1 / 1", ""],
    ]
    assert "8 runs missing" in table.note
    assert "Failed" not in table.note
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "ml-1m.leave-one-out.MARS.2.txt").write_text("Traceback", "utf-8")
    note = studies.grid(read_results(tmp_path)).note
    assert note.endswith("Failed, with the reason in failed/: ml-1m.leave-one-out.MARS.2.")


def test_table_1_has_the_paper_in_its_own_column(tmp_path):
    told = {"users": 6040, "mean_length": 165.597, "image_share": 0.9}
    table = made(tmp_path, studies.data_sets, record(method="DIN", statistics=told), scores=False)
    (part,) = table.parts
    assert part.rows[0] == ["users", "6,040", "6,041"]
    assert part.rows[1] == ["items", "n/a", "3,417"]
    assert part.rows[-1] == ["items with image", "90.0%", ""]
    assert only(table.rows, statistic="mean_length")["paper"] == 165


def test_statistics_by_hand():
    log = InteractionLog(
        users=np.array([1, 1, 3]),
        items=np.array([1, 2, 1]),
        labels=np.array([1, 0, 1], dtype=np.float32),
        times=np.arange(3.0),
        phases=np.zeros(3, dtype=np.int8),
        n_users=4,
        n_items=5,
    )
    assert dataset_statistics(log, np.array([False, True, False, True, True])) == {
        "users": 2,
        "items": 2,
        "interactions": 3,
        "mean_length": 1.5,
        "sparsity": 0.25,
        "positive_share": pytest.approx(2 / 3),
        "text_share": 0.5,  # of the two items that occur
        "image_share": 0.0,
    }
    with pytest.raises(
        ValueError, match="image_present must have one value for each of 5 item ids"
    ):
        dataset_statistics(log, image_present=np.ones(4, dtype=bool))


def test_published_rela_impr_follows_from_published_auc():
    # Within the rounding of the AUCs; a slip in copying would be far larger.
    paper = MARS_PAPER
    for dataset in ("ml-1m", "Amazon_Beauty", "amazon-toys"):
        base = paper.result(dataset, "BaseModel").auc
        for row in (*paper.baselines.values(), "MARS"):
            printed = paper.result(dataset, row)
            assert 100 * ((printed.auc - 0.5) / (base - 0.5) - 1) == pytest.approx(
                printed.rela_impr, abs=0.15
            )
        mars = paper.ablation(dataset, "MARS").auc
        for row in paper.ablations.values():
            printed = paper.ablation(dataset, row)
            assert 100 * ((printed.auc - 0.5) / (mars - 0.5) - 1) == pytest.approx(
                printed.rela_impr, abs=0.15
            )
    assert paper.result("ml-100k", "MARS") is None
    assert paper.best_baseline("ml-100k") is None


def test_published_gains_of_dmae_follow_from_its_aucs():
    """The paper averages AUC / AUC of DIN - 1 over four data sets, the fourth its authors' own."""
    industrial = {"DIN": 0.7152, "DMAE": 0.7319, "SimTier": 0.7252, "Wide&Deep": 0.6990}
    for row, gain in (("DMAE", 3.23), ("SimTier", 2.08), ("Wide&Deep", -3.95)):
        pairs = [
            (DMAE_PAPER.result(name, row).auc, DMAE_PAPER.result(name, "DIN").auc)
            for name in ("amazon-books", "amazon-electronics", "ml-20m")
        ]
        pairs.append((industrial[row], industrial["DIN"]))
        found = 100 * np.mean([after / before - 1 for after, before in pairs])
        assert found == pytest.approx(gain, abs=0.03)


def test_dmae_stands_beside_its_own_paper(tmp_path):
    spec = {
        "base": "DIN",
        "measured": "DMAE",
        "datasets": {"ml-20m": {}},
        "splits": {"temporal": {"split": {"RS": [8, 1, 1]}}},
        "methods": {name: {} for name in ("DIN", "SimTier", "DMAE")},
        "seeds": list(SEEDS),
    }
    place = {"dataset": "ml-20m", "split": "temporal"}
    gains = {"DIN": 0.0, "SimTier": 0.01, "DMAE": 0.02}
    records = [one for name, gain in gains.items() for one in runs(name, gain, **place)]
    table = made(tmp_path, overall, *records, spec=spec)
    assert [row["paper_auc"] for row in table.rows] == [0.7366, 0.7482, 0.7570]
    assert "GPT-3" in table.note
    (row,) = made(tmp_path, best_baselines, spec=spec).rows
    assert (row["against"], row["paper_baseline"]) == ("SimTier", "SimTier")
    assert row["paper_difference"] == pytest.approx(0.7570 - 0.7482)


def test_csv_is_read_back_the_same(tmp_path):
    table = made(tmp_path, overall, *runs("DIN"), *runs("MARS", 0.02))
    back = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(back) == 2
    for row, found in zip(table.rows, back):
        for name, value in row.items():
            if value is None or (isinstance(value, float) and math.isnan(value)):
                assert found[name] == ""
            else:
                assert type(value)(found[name]) == value


def test_markdown_and_csv_of_a_table_without_rows():
    table = Table("empty", "Empty", "Nothing.", [])
    assert to_markdown(table) == "## Empty\n\nNothing recorded yet.\n"
    assert to_csv(table) == "\n"
    assert number(math.nan, ".4f") == "n/a"
