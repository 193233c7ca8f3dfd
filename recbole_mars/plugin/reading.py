"""Interaction files of any size into flat columns: tokens are numbers from the first chunk on."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

__all__ = ["FlatReading", "read_interactions"]

_CHUNK = 1 << 20  # rows
_TIES = 0  # seed of their order
_FEWEST_TIES = 100  # and the share of them in order, from which that is no chance
_SORTED_SHARE = 0.95


def read_interactions(
    file: str, columns: Mapping[str, bool], separator: str, encoding: str
) -> pd.DataFrame:
    """Columns of a delimited file: tokens as categories, numbers as float64.

    RecBole keeps each token as a Python string and parses in Python, some fifty times as slow.

    columns: header of each column to read, and whether it holds tokens. Raises ValueError naming
    the file, with column and line of what is no number; for rows with too many fields, or text in
    another encoding, with what the parser says.
    """
    vocabularies: dict[str, dict[str, int]] = {name: {} for name, token in columns.items() if token}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    form: dict[str, Any] = {"delimiter": separator, "encoding": encoding, "chunksize": _CHUNK}
    kinds = {name: "category" if token else np.float64 for name, token in columns.items()}
    # pandas tells of rows with too many fields only where it reads all columns.
    whole = set(pd.read_csv(file, nrows=0, delimiter=separator, encoding=encoding)) == set(columns)
    wanted = None if whole else list(columns)
    try:
        for chunk in pd.read_csv(file, usecols=wanted, dtype=kinds, **form):
            for name, token in columns.items():
                values = chunk[name]
                if token:
                    known = vocabularies[name]
                    ids = [known.setdefault(word, len(known)) for word in values.cat.categories]
                    place = np.array([*ids, -1], dtype=np.int32)  # code -1, missing, reads the last
                    parts[name].append(place[values.cat.codes.to_numpy()])
                else:
                    parts[name].append(values.to_numpy())
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {error}; see field_separator and encoding") from None
    except ValueError as error:
        where = _bad_number(file, [name for name, token in columns.items() if not token], form)
        raise ValueError(f"{file}: {where or error}; float columns must hold numbers") from None
    frame = {}
    for name in columns:
        values = np.concatenate(parts.pop(name)) if parts[name] else np.zeros(0)
        if name in vocabularies:
            tokens = pd.Index(list(vocabularies[name]), dtype=object)
            frame[name] = pd.Categorical.from_codes(values.astype(np.int32, copy=False), tokens)
        else:
            frame[name] = values
    return pd.DataFrame(frame, copy=False)


def _bad_number(file: str, columns: list[str], form: dict[str, Any]) -> str:
    """Where the first text is that is no number."""
    begin = 2
    for chunk in pd.read_csv(file, usecols=columns, dtype=str, **form):
        for name in columns:
            bad = chunk[name].notna() & pd.to_numeric(chunk[name], errors="coerce").isna()
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                return f"column {name}, line {begin + row}: {chunk[name].iloc[row]!r} is no number"
        begin += len(chunk)
    return ""


class FlatReading(Dataset):
    """RecBole's reading and filtering, on columns of numbers instead of Python strings.

    The data set is the same, numbers of tokens included; the rows come sorted by user and time.
    Raises ValueError for a missing file, column or id, and for duplicate rows (see duplicates).
    """

    inter_feat: Any  # a DataFrame while the data is prepared, then an Interaction

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        plain = os.path.join(dataset_path, f"{token}.inter")
        if os.path.isfile(plain) or not os.path.isfile(f"{plain}.gz"):
            super()._load_inter_feat(token, dataset_path)
            return
        with tempfile.TemporaryDirectory() as folder:
            unpacked = os.path.join(folder, f"{token}.inter")
            with gzip.open(f"{plain}.gz", "rb") as packed, open(unpacked, "wb") as file:
                shutil.copyfileobj(packed, file)
            super()._load_inter_feat(token, folder)

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        separator, encoding = self.config["field_separator"], self.config["encoding"]
        with open(filepath, encoding=encoding) as file:
            header = file.readline().rstrip("\n").split(separator)
        bad = [column for column in header if column.count(":") != 1]
        if bad:
            raise ValueError(
                f"{filepath}: column {bad[0]!r} must be named name:type (token, token_seq, float "
                "or float_seq), separated by tabs; see RecBole's atomic files"
            )
        lists = any(column.endswith("_seq") for column in header)
        if source != FeatureSource.INTERACTION or lists or len(separator) != 1:
            return super()._load_feat(filepath, source)
        with tempfile.TemporaryDirectory() as folder:
            # A file without rows, for RecBole to note the fields.
            only_header = os.path.join(folder, os.path.basename(filepath))
            with open(only_header, "w", encoding=encoding) as file:
                file.write(separator.join(header) + "\n")
            fields = super()._load_feat(only_header, source)
        if fields is None:
            return None
        columns = {f"{name}:{self.field2type[name].value}": name for name in fields}
        tokens = {key: self.field2type[name] == FeatureType.TOKEN for key, name in columns.items()}
        return read_interactions(filepath, tokens, separator, encoding).rename(columns=columns)

    def _data_filtering(self) -> None:
        for field in (self.uid_field, self.iid_field, self.time_field):
            if field not in self.inter_feat:
                raise ValueError(
                    f"{self.dataset_name}.inter must have the column {field!r}, found "
                    f"{list(self.inter_feat)}; add it to load_col or set the field's name"
                )
        for field in (self.uid_field, self.iid_field):
            missing = self.inter_feat.index[self.inter_feat[field].isnull()]
            if len(missing):
                raise ValueError(
                    f"{self.dataset_name}.inter: {len(missing)} rows have no {field}, the first in "
                    f"line {missing[0] + 2}; an id that is empty or reads as missing (nan, NULL, "
                    "NA, None) must be renamed"
                )
        self._handle_duplicates()
        super()._data_filtering()

    def _handle_duplicates(self) -> None:
        how = self.config["duplicates"]
        if how == "keep":
            return
        key = [self.uid_field, self.iid_field, self.time_field]
        suspects = _rows_of_equal_hash(self.inter_feat[key])
        repeated = suspects[self.inter_feat[key].iloc[suspects].duplicated(keep="last")]
        if not len(repeated):
            return
        first = self.inter_feat[key].iloc[repeated[0]].tolist()
        found = (
            f"{len(repeated)} rows repeat the user, item and time of another, "
            f"the first: {dict(zip(key, first))}"
        )
        if how == "error":
            raise ValueError(
                f"{self.dataset_name}.inter: {found}. A repeated row shows a target in its own "
                "history; remove them, or set duplicates: drop (the last is kept) or keep"
            )
        self.logger.warning(f"{found}; dropped, the last of each is kept (duplicates: drop)")
        self.inter_feat = self.inter_feat.drop(self.inter_feat.index[repeated])

    def _remap(self, remap_list: list[tuple[pd.DataFrame, str, FeatureType]]) -> None:
        """RecBole's numbers, in order of appearance; of a categorical column each token is seen
        once, not once a row."""
        stand_ins, columns = [], []
        for feat, field, kind in remap_list:
            if isinstance(feat[field].dtype, pd.CategoricalDtype):
                codes = feat[field].cat.codes.to_numpy()
                present = pd.unique(codes)
                present = present[present >= 0]
                tokens = feat[field].cat.categories.to_numpy()
                stand_in = pd.DataFrame({field: tokens[present]})
                columns.append((feat, field, codes, present, len(tokens), stand_in))
                feat = stand_in
            stand_ins.append((feat, field, kind))
        super()._remap(stand_ins)
        for feat, field, codes, present, n_tokens, stand_in in columns:
            ids = np.zeros(n_tokens + 1, dtype=np.int64)  # code -1, missing, reads the last: 0
            ids[present] = stand_in[field]
            feat[field] = ids[codes]

    def _data_processing(self) -> None:
        super()._data_processing()
        # RecBole casts times to float32 before it sorts, 64-second steps at today's epoch:
        # the order is settled here, in 64 bit.
        table = self.inter_feat
        places = np.arange(len(table))
        if self.config["ties"] == "shuffled":
            places = np.random.default_rng(_TIES).permutation(len(table))
        order = np.lexsort((places, table[self.time_field], table[self.uid_field]))
        if self.config["ties"] == "file":
            self._warn_of_sorted_ties(order)
        sorted_columns = {}
        for name in list(table):
            values = table.pop(name).to_numpy()
            sorted_columns[name] = values[order].astype(self._type_of(name, values), copy=False)
        self.inter_feat = pd.DataFrame(sorted_columns, copy=False)

    def _warn_of_sorted_ties(self, order: np.ndarray) -> None:
        """Rows of one time that stand in the order of their items tell which items come later."""
        users, times, items = (
            self.inter_feat[name].to_numpy()[order]
            for name in (self.uid_field, self.time_field, self.iid_field)
        )
        tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
        tokens = pd.Series(self.field2id_token[self.iid_field][1:])
        numbers = pd.to_numeric(tokens, errors="coerce")
        ranks = np.r_[0, (tokens if numbers.isna().any() else numbers).rank().to_numpy()]
        steps = (ranks[items[1:]] - ranks[items[:-1]])[tied]
        share = max(np.mean(steps >= 0), np.mean(steps <= 0)) if len(steps) else 0.0
        if len(steps) >= _FEWEST_TIES and share >= _SORTED_SHARE:
            self.logger.warning(
                f"{self.dataset_name}.inter: of {len(steps)} neighbouring rows with the same user "
                f"and time {share:.0%} stand in the order of {self.iid_field}. Models that know "
                "the order of a history can tell later items from others by it, which matters "
                "where items are to be told from sampled ones; set ties: shuffled to undo it"
            )

    def _type_of(self, name: str, values: np.ndarray) -> np.dtype[Any]:
        """The type in which a column is kept."""
        kind = self.field2type[name]
        if values.dtype == object or name in self.config["numerical_features"]:
            return values.dtype  # lists, or RecBole's pairs of value and bucket
        if kind == FeatureType.FLOAT:
            return np.dtype(np.float64 if name == self.time_field else np.float32)
        return np.dtype(np.int64)

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        flat = {}
        for name in data:
            values = data[name].to_numpy()
            if values.dtype != object and name not in self.config["numerical_features"]:
                flat[name] = torch.from_numpy(
                    values.astype(self._type_of(name, values), copy=False)
                )
        rest = super()._dataframe_to_interaction(data[[name for name in data if name not in flat]])
        return Interaction({name: flat[name] if name in flat else rest[name] for name in data})


def _rows_of_equal_hash(table: pd.DataFrame) -> np.ndarray:
    """Rows that may equal another one: all that do, and hardly any that do not."""
    hashes = np.zeros(len(table), dtype=np.uint64)
    for name in table:
        column = table[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            numbers = column.cat.codes.to_numpy()
        else:
            numbers = column.to_numpy() if column.dtype != object else pd.factorize(column)[0]
        hashes ^= numbers.astype(np.float64).view(np.uint64)
        # The mixing steps of SplitMix64 (Steele et al., 2014).
        hashes += np.uint64(0x9E3779B97F4A7C15)
        hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes ^= hashes >> np.uint64(31)
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.flatnonzero(np.isin(hashes, twice)) if len(twice) else np.zeros(0, dtype=np.int64)
