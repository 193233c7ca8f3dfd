"""What an experiment is: data sets x splits x methods x seeds, as one YAML file names them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Experiment", "Group", "Method", "Search", "load_experiment", "read_experiment"]

_NAME = re.compile(r"[\w+-][\w .+-]*")
# Keys that name a run, and where they are said instead: settings must not change them unseen.
_ELSEWHERE = {
    "dataset": "name it in datasets",
    "eval_args": "name it in splits",
    "seed": "list it in seeds",
    "data_path": "give it with --data_path",
}
_MAX_SEED = 2**32 - 1  # numpy's


@dataclass(frozen=True)
class Method:
    """Settings under a name. like: the method whose settings and chosen values it starts from.

    seeds, datasets: with which it is run at all.
    """

    name: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    like: str | None = None


@dataclass(frozen=True)
class Group:
    """Runs that belong together in a report: of these methods, in this order."""

    name: str
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    splits: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """Hyper-parameters that are drawn, as many times for each method, and judged by validation.

    space: values by key, for every method; more: further ones by method. settings: laid over the
    settings of a trial, such as fewer epochs.
    """

    trials: int
    seed: int
    space: Mapping[str, tuple[Any, ...]]
    more: Mapping[str, Mapping[str, tuple[Any, ...]]]
    settings: Mapping[str, Any]

    def space_of(self, method: str) -> dict[str, tuple[Any, ...]]:
        """The values to draw from for a method."""
        return {**self.space, **self.more.get(method, {})}


@dataclass(frozen=True)
class Experiment:
    """Everything that an experiment runs, checked.

    base: the method that others are compared with. measured: the one that the report is about,
    "" for the one that is called MARS. datasets: settings by name; splits: eval_args
    by name. groups: in the order in which they are run. content: all of it as YAML holds it.
    """

    name: str
    base: str
    measured: str
    settings: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]]
    splits: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Method]
    groups: tuple[Group, ...]
    seeds: tuple[int, ...]
    search: Search | None
    content: Mapping[str, Any]


def load_experiment(file: str | Path) -> Experiment:
    """Read a YAML file; `extends` names another one, beside it, whose keys it changes.

    Mappings are merged key by key, a key that is ~ is taken out, anything else is replaced.
    Raises ValueError as `read_experiment` does, and for a file that is no YAML mapping.
    """
    return read_experiment(_load(Path(file), ()), name=Path(file).stem)


def read_experiment(content: Mapping[str, Any], name: str = "experiment") -> Experiment:
    """Check what a YAML file holds; name: unless it gives one.

    Raises ValueError with the first thing that is wrong: an unknown key, a name that is not
    defined, a value of another kind, a search that cannot give every method its trials.
    """
    reader = _Reader(content)
    seeds = reader.seeds("seeds", content.get("seeds"), None)
    datasets = {
        key: reader.settings(f"datasets.{key}", value or {})
        for key, value in reader.named("datasets").items()
    }
    splits = {key: reader.split(key, value) for key, value in reader.named("splits").items()}
    methods = {
        key: reader.method(key, value, seeds, tuple(datasets))
        for key, value in reader.named("methods").items()
    }
    base = content.get("base", next(iter(methods)))
    reader.known("base", [base], methods)
    measured = content.get("measured", "")
    if "measured" in content:
        reader.known("measured", [measured], methods)
    if measured == base:
        raise ValueError(f"measured must be another method than base, got {measured} for both")
    for method in methods.values():
        if method.like is not None:
            reader.known(f"methods.{method.name}.like", [method.like], methods)
            if methods[method.like].like is not None:
                raise ValueError(
                    f"methods.{method.name}.like must name a method that is not like another "
                    f"itself, got {method.like}"
                )
    whole = {"methods": list(methods)}
    groups = content.get("groups", {"all": whole})
    if not isinstance(groups, dict) or not groups:
        raise ValueError(f"groups must name lists of methods, got {groups!r}")
    scope = {"datasets": datasets, "splits": splits, "seeds": seeds, "methods": methods}
    return Experiment(
        name=reader.name(content.get("name", name)),
        base=base,
        measured=measured,
        settings=reader.settings("settings", content.get("settings", {})),
        datasets=datasets,
        splits=splits,
        methods=methods,
        groups=tuple(reader.group(key, value, scope) for key, value in groups.items()),
        seeds=seeds,
        search=reader.search(content.get("search"), methods, seeds),
        content={**content, "name": content.get("name", name), "base": base},
    )


class _Reader:
    """Parts of an experiment's YAML, each checked as it is read."""

    KEYS = (
        *("name", "base", "measured", "settings", "datasets", "splits", "methods", "groups"),
        *("seeds", "search"),
    )

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self.only("the experiment", content, self.KEYS)

    @staticmethod
    def only(where: str, found: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key in found:
            if key not in keys:
                close = difflib.get_close_matches(str(key), keys, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(f"{where} has no key {key}, only {', '.join(keys)}{hint}")

    @staticmethod
    def known(where: str, names: Any, defined: Any) -> None:
        for name in names:
            if name not in defined:
                close = difflib.get_close_matches(str(name), [str(d) for d in defined], n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(
                    f"{where}: {name} is not defined, only {', '.join(map(str, defined))}{hint}"
                )

    @staticmethod
    def mapping(where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be keys and values, got {value!r}")
        return value

    def settings(self, where: str, value: Any) -> dict[str, Any]:
        found = dict(self.mapping(where, value))
        for key, place in _ELSEWHERE.items():
            if key in found:
                raise ValueError(f"{where} must not hold {key}, got {found[key]!r}: {place}")
        return found

    def split(self, name: str, value: Any) -> dict[str, Any]:
        if not value or "split" not in value:
            raise ValueError(
                f"splits.{name} must hold eval_args with split, got {value!r}; such as "
                "{split: {LS: valid_and_test}, order: TO, mode: labeled}"
            )
        return dict(value)

    @staticmethod
    def name(value: Any) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ValueError(
                f"name must be of letters, digits, spaces and _ . + -, got {value!r}: files are "
                "named by it"
            )
        return value

    @staticmethod
    def seeds(where: str, value: Any, allowed: tuple[int, ...] | None) -> tuple[int, ...]:
        whole = isinstance(value, list) and all(type(seed) is int for seed in value)
        if not whole or not value or len(set(value)) < len(value):
            raise ValueError(f"{where} must be a list of different whole numbers, got {value!r}")
        if min(value) < 0 or max(value) > _MAX_SEED:
            raise ValueError(f"{where} must be between 0 and {_MAX_SEED}, got {value}")
        if allowed is not None and not set(value) <= set(allowed):
            raise ValueError(f"{where} must be among seeds, {list(allowed)}, got {value}")
        return tuple(value)

    def named(self, key: str) -> dict[str, Any]:
        """A mapping of names that may stand in a file's name, to mappings."""
        found = self.mapping(key, self._content.get(key))
        if not found:
            raise ValueError(f"{key} must name at least one, got {found!r}")
        files: dict[str, str] = {}
        for name, value in found.items():
            self.name(name)
            if files.setdefault(name.replace(" ", "_"), name) != name:
                raise ValueError(f"{key}: {name!r} and {files[name.replace(' ', '_')]!r} clash")
            self.mapping(f"{key}.{name}", {} if value is None else value)
        return found

    def method(
        self, name: str, value: Any, seeds: tuple[int, ...], datasets: tuple[str, ...]
    ) -> Method:
        settings = self.settings(f"methods.{name}", value or {})
        like = settings.pop("like", None)
        if "seeds" in settings:
            seeds = self.seeds(f"methods.{name}.seeds", settings.pop("seeds"), seeds)
        if "datasets" in settings:
            where, chosen = f"methods.{name}.datasets", settings.pop("datasets")
            datasets = self.names(where, chosen, datasets)
        return Method(name, settings, seeds, datasets, like)

    def names(self, where: str, value: Any, defined: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"{where} must be a list of names, got {value!r}")
        self.known(where, value, defined)
        for one in value:
            if value.count(one) > 1:
                raise ValueError(f"{where} must name each once, got {one} {value.count(one)} times")
        return tuple(value)

    def group(self, name: str, value: Any, scope: Mapping[str, Any]) -> Group:
        where = f"groups.{self.name(name)}"
        chosen = {"methods": value} if isinstance(value, list) else self.mapping(where, value)
        self.only(where, chosen, tuple(scope))
        parts = {
            key: self.names(f"{where}.{key}", chosen.get(key, list(all_of)), all_of)
            for key, all_of in scope.items()
        }
        return Group(name, **parts)

    def search(
        self, value: Any, methods: Mapping[str, Method], seeds: tuple[int, ...]
    ) -> Search | None:
        if value is None:
            return None
        found = self.mapping("search", value)
        self.only("search", found, ("trials", "seed", "space", "methods", "settings"))
        trials, seed = found.get("trials"), found.get("seed", 1)
        if type(trials) is not int or trials < 1:
            raise ValueError(f"search.trials must be a whole number >= 1, got {trials!r}")
        if type(seed) is not int or seed in seeds:
            raise ValueError(
                f"search.seed must be a whole number that is none of seeds {list(seeds)}, got "
                f"{seed!r}: values are not chosen by the runs that are reported"
            )
        if not 0 <= seed <= _MAX_SEED:
            raise ValueError(f"search.seed must be between 0 and {_MAX_SEED}, got {seed}")
        searched = {name: method for name, method in methods.items() if method.like is None}
        more = self.mapping("search.methods", found.get("methods", {}))
        self.known("search.methods", more, searched)
        result = Search(
            trials=trials,
            seed=seed,
            space=self._space("search.space", found.get("space", {})),
            more={name: self._space(f"search.methods.{name}", v) for name, v in more.items()},
            settings=self.settings("search.settings", found.get("settings", {})),
        )
        for name, method in searched.items():
            space = result.space_of(name)
            fixed = [key for key in space if key in method.settings]
            if fixed:
                raise ValueError(
                    f"search draws {fixed[0]}, which methods.{name} sets: take it out of one"
                )
            size = prod(len(values) for values in space.values())
            if size < trials:
                raise ValueError(
                    f"search.trials must be at most {size}, the combinations of {name}'s space, "
                    f"got {trials}: every method gets as many; add values, or lower it"
                )
        return result

    def _space(self, where: str, value: Any) -> dict[str, tuple[Any, ...]]:
        space = self.settings(where, value)
        for key, values in space.items():
            texts = [repr(v) for v in values] if isinstance(values, list) else []
            if not texts or len(set(texts)) < len(texts):
                raise ValueError(f"{where}.{key} must list different values, got {values!r}")
        return {key: tuple(values) for key, values in space.items()}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which the last one would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {file} as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold keys and values, got {content!r}")
    parent = content.pop("extends", None)
    if parent is None:
        return content
    place = file.parent / str(parent)
    if place.resolve() in seen or place.resolve() == file.resolve():
        raise ValueError(f"{file}: extends {parent}, which extends it in turn")
    content.setdefault("name", file.stem)
    return _merged(_load(place, (*seen, file.resolve())), content)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        if value is None and key in result and isinstance(result[key], (dict, list)):
            del result[key]
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result
