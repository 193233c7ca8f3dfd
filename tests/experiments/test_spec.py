"""Experiments as YAML: what they mean, their order, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from recbole_mars.experiments.plan import in_no_group, parse_only, planned_runs, run_settings
from recbole_mars.experiments.spec import load_experiment, read_experiment
from recbole_mars.plugin.config import properties_folder


def named(runs):
    return [(run.dataset, run.split, run.method, run.seed) for run in runs]


def test_groups_come_one_after_the_other_each_seed_by_seed(content):
    content["datasets"] = {"b": {}, "a": {}}
    content["methods"]["side"] = {"like": "MARS", "mars_theta": 0.5, "seeds": [2021]}
    content["groups"] = {"main": ["MARS", "DIN"], "study": {"methods": ["MARS", "side"]}}
    content["groups"]["study"]["datasets"] = ["a"]
    runs = planned_runs(read_experiment(content))
    main = [("b", "MARS"), ("b", "DIN"), ("a", "MARS"), ("a", "DIN")]
    assert named(runs) == [
        *((dataset, "leave-one-out", method, 2020) for dataset, method in main),
        *((dataset, "leave-one-out", method, 2021) for dataset, method in main),
        ("a", "leave-one-out", "side", 2021),
    ]
    groups = {(run.dataset, run.method, run.seed): run.groups for run in runs}
    assert groups["a", "MARS", 2020] == ("main", "study")
    assert groups["b", "MARS", 2020] == ("main",)
    assert groups["a", "side", 2021] == ("study",)


def test_only_a_part(content):
    content["datasets"]["other"] = {}
    content["groups"] = {"main": ["DIN", "MARS"], "base": ["DIN"]}
    experiment = read_experiment(content)
    only = parse_only("dataset=world, method=MARS,method=DIN,seed=2021", experiment)
    assert only == {"dataset": ["world"], "method": ["MARS", "DIN"], "seed": ["2021"]}
    found = planned_runs(experiment, only)
    assert named(found) == [("world", "leave-one-out", m, 2021) for m in ("DIN", "MARS")]
    assert {run.method for run in planned_runs(experiment, {"group": ["base"]})} == {"DIN"}
    for wrong, said in (("model=DIN", "--only must name dataset"), ("method=DINN", "one of")):
        with pytest.raises(ValueError, match=said):
            parse_only(wrong, experiment)
    with pytest.raises(ValueError, match="no run is left"):
        planned_runs(experiment, {"group": ["base"], "method": ["MARS"]})


def test_settings_from_general_to_particular(content):
    content["settings"].update(mars_theta=0.1, mars_beta=0.1, mars_eta=0.1, mars_lambda=0.1)
    content["datasets"]["world"] = {"mars_beta": 0.2, "mars_eta": 0.2, "mars_lambda": 0.2}
    content["methods"]["MARS"] = {"augmentation": "mars", "mars_eta": 0.3}
    content["methods"]["side"] = {"like": "MARS", "mars_lambda": 0.5}
    experiment = read_experiment(content)
    run = next(run for run in planned_runs(experiment) if run.method == "side")
    chosen = {"mars_lambda": 0.4, "mars_width": 16}
    found = run_settings(experiment, run, "/data", chosen)
    values = {key: found[key] for key in ("mars_theta", "mars_beta", "mars_eta", "mars_lambda")}
    assert values == {"mars_theta": 0.1, "mars_beta": 0.2, "mars_eta": 0.3, "mars_lambda": 0.5}
    assert found["mars_width"] == 16
    assert found["augmentation"] == "mars"
    assert found["seed"] == 2020
    assert found["eval_args"] == content["splits"]["leave-one-out"]
    assert found["data_path"] == "/data"
    assert found["image_dir"] == "/data/world/images"
    here = run_settings(experiment, run, None)
    assert "data_path" not in here
    assert here["image_dir"] == "dataset/world/images"


def test_extends(tmp_path):
    below = {
        "settings": {"epochs": 1, "mars_theta": 0.5},
        "datasets": {"a": {}},
        "splits": {"s": {"split": {"LS": "valid_and_test"}}},
        "methods": {"DIN": {"augmentation": "none"}, "gone": {"epochs": 3}},
        "groups": {"main": ["DIN", "gone"]},
        "seeds": [1, 2],
    }
    (tmp_path / "below.yaml").write_text(yaml.safe_dump(below))
    (tmp_path / "above.yaml").write_text(
        "extends: below.yaml\nsettings: {epochs: 9}\nmethods: {gone: ~}\ngroups: {main: [DIN]}\n"
        "seeds: [3]\n"
    )
    experiment = load_experiment(tmp_path / "above.yaml")
    assert experiment.name == "above"
    assert experiment.settings == {"epochs": 9, "mars_theta": 0.5}
    assert list(experiment.methods) == ["DIN"]
    assert experiment.seeds == (3,)
    (tmp_path / "below.yaml").write_text("extends: above.yaml\n")
    with pytest.raises(ValueError, match="extends it in turn"):
        load_experiment(tmp_path / "above.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sets": {}}, "the experiment has no key sets, only name, base"),
        ({"setings": {}}, "did you mean settings"),
        ({"datasets": {}}, "datasets must name at least one"),
        ({"datasets": None}, "datasets must be keys and values, got None"),
        ({"datasets": {"a/b": {}}}, "name must be of letters"),
        ({"methods": {"a b": {}, "a_b": {}}}, "'a_b' and 'a b' clash"),
        ({"methods": {"DIN": 3}}, "methods.DIN must be keys and values, got 3"),
        ({"methods": {"x": {"like": "y"}}}, "methods.x.like: y is not defined"),
        ({"methods": {"a": {}, "b": {"like": "a"}, "c": {"like": "b"}}}, "not like another"),
        ({"methods": {"a": {"seeds": [7]}}}, r"must be among seeds, \[2020, 2021\], got \[7\]"),
        ({"methods": {"a": {"datasets": ["x"]}}}, "methods.a.datasets: x is not defined"),
        ({"measured": "MRAS"}, "measured: MRAS is not defined, only DIN, MARS; did you mean MARS"),
        ({"measured": "DIN"}, "measured must be another method than base, got DIN for both"),
        ({"base": "DNI"}, "base: DNI is not defined, only DIN, MARS; did you mean DIN"),
        ({"seeds": []}, "seeds must be a list of different whole numbers"),
        ({"seeds": [1, 1]}, "seeds must be a list of different whole numbers"),
        ({"seeds": [-1]}, r"seeds must be between 0 and 4294967295, got \[-1\]"),
        ({"seeds": [2**40]}, "seeds must be between 0 and 4294967295"),
        ({"settings": {"eval_args": {}}}, "settings must not hold eval_args.*name it in splits"),
        ({"settings": {"seed": 5}}, "settings must not hold seed, got 5: list it in seeds"),
        ({"settings": {"data_path": "x"}}, "settings must not hold data_path.*--data_path"),
        ({"datasets": {"a": {"dataset": "b"}}}, "datasets.a must not hold dataset.*in datasets"),
        ({"methods": {"a": {"eval_args": {"order": "RO"}}}}, "methods.a must not hold eval_args"),
        ({"splits": {"s": {}}}, "splits.s must hold eval_args with split, got {}"),
        ({"splits": {"s": {"order": "TO"}}}, "splits.s must hold eval_args with split"),
        ({"groups": {"g": ["DIN", "DIN"]}}, "groups.g.methods must name each once, got DIN 2"),
        ({"groups": {"g": {"seeds": [2020, 2020]}}}, "groups.g.seeds must name each once"),
        ({"search": {"trials": 1, "seed": -1}}, "search.seed must be between 0 and"),
        ({"search": {"trials": 1, "settings": {"seed": 1}}}, "search.settings must not hold seed"),
        ({"search": {"trials": 1, "space": {"seed": [1]}}}, "search.space must not hold seed"),
        (
            {"search": {"trials": 1, "methods": {"DIN": {"eval_args": [1]}}}},
            "search.methods.DIN must not hold eval_args",
        ),
        ({"seeds": [True]}, "seeds must be a list of different whole numbers"),
        ({"groups": []}, "groups must name lists of methods"),
        ({"groups": {"g": ["MRAS"]}}, "groups.g.methods: MRAS is not defined.*did you mean MARS"),
        ({"groups": {"g": {"method": ["MARS"]}}}, "groups.g has no key method.*did you mean"),
        ({"groups": {"g": {"splits": []}}}, "groups.g.splits must be a list of names"),
        ({"search": {"trials": 0}}, "search.trials must be a whole number >= 1, got 0"),
        ({"search": {"trials": 1, "seed": 2020}}, "none of seeds"),
        ({"search": {"trials": 1, "spase": {}}}, "search has no key spase.*did you mean space"),
        ({"search": {"trials": 3, "space": {"epochs": [1, 2]}}}, "at most 2, the combinations of"),
        ({"search": {"trials": 1, "space": {"epochs": [1, 1]}}}, "must list different values"),
        ({"search": {"trials": 1, "space": {"augmentation": ["none"]}}}, "which methods.DIN sets"),
        ({"search": {"trials": 1, "methods": {"M": {}}}}, "search.methods: M is not defined"),
        ({"name": "../x"}, "files are named by it"),
    ],
)
def test_mistakes_are_named(content, change, said):
    with pytest.raises(ValueError, match=said):
        read_experiment({**content, **change})


@pytest.mark.parametrize("text", ["[1]", "a: [", "\xff", "a: 1\nb: {c: 1, c: 2}"])
def test_files_that_cannot_be_read(tmp_path, text):
    (tmp_path / "x.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.yaml"):
        load_experiment(tmp_path / "x.yaml")
    with pytest.raises(ValueError, match="cannot read"):
        load_experiment(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", sorted((properties_folder() / "experiment").glob("*.yaml")))
def test_ours_can_be_read(file: Path):
    experiment = load_experiment(file)
    assert experiment.name == file.stem
    runs = planned_runs(experiment)
    assert {run.method for run in runs} == set(experiment.methods)  # none is forgotten
    assert len({run.stem for run in runs}) == len(runs)


def test_the_paper_experiment_compares_like_with_like():
    experiments = properties_folder() / "experiment"
    plain = load_experiment(experiments / "mars-paper.yaml")
    labelled = load_experiment(experiments / "mars-paper-labels.yaml")
    assert (plain.settings["history_labels"], labelled.settings["history_labels"]) == (False, True)
    assert set(plain.methods) - set(labelled.methods) == {"MARS full attention"}
    assert [group.name for group in labelled.groups] == [group.name for group in plain.groups]
    table = next(group for group in plain.groups if group.name == "table-2")
    assert len(table.methods) == 10
    assert len(table.seeds) >= 5
    for name in table.methods:  # one key apart
        assert list(plain.methods[name].settings) == ["augmentation"]


def test_a_key_given_twice_is_said_with_its_line(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("seeds: [1]\nsettings: {}\nseeds: [2]\n")
    with pytest.raises(ValueError, match=r"seeds is given twice(.|\n)*line 3"):
        load_experiment(file)


def test_methods_in_no_group(content):
    assert in_no_group(read_experiment(content)) == []
    content["groups"] = {"main": ["DIN"]}
    assert in_no_group(read_experiment(content)) == ["MARS"]
