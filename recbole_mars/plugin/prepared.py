"""A data set as it stands before it is split, kept on disk: a second start reads no text."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType, dataset_arguments

from recbole_mars import __version__
from recbole_mars.data import load_columns, save_columns
from recbole_mars.plugin.distributed import first_process_first

__all__ = ["KeptPreparation"]

_WORTH_KEEPING = 1_000_000  # interactions
_FORMAT = 2  # counted up when the same files are prepared in another way


class KeptPreparation(Dataset):
    """RecBole's preparation from the text files, kept as flat columns; see keep_prepared."""

    config: Config
    inter_feat: Any  # DataFrames, and later Interactions
    user_feat: Any
    item_feat: Any

    def _from_scratch(self) -> None:
        self._get_preset()
        if not os.path.isdir(self.dataset_path):
            self._download()  # for which RecBole lets all processes wait
        with first_process_first():
            self._find_or_prepare()

    def _find_or_prepare(self) -> None:
        folder = self._folder()
        if folder.is_dir() and self.config["keep_prepared"] is not False:
            self._get_field_from_config()
            try:
                self._restore(folder)
            except (ValueError, KeyError) as error:
                self.logger.warning(f"{error}: preparing anew")
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self.logger.info(f"prepared data found in {folder}")
                return
        super()._from_scratch()
        keep = self.config["keep_prepared"]
        if keep or (keep is None and len(self.inter_feat) >= _WORTH_KEEPING):
            obstacle = self._obstacle()
            if obstacle:
                self.logger.info(f"the prepared data is not kept: {obstacle}")
                return
            try:
                self._keep(folder)
                self._restore(folder)  # from here on the pages of the files
            except (OSError, ValueError) as error:
                self.logger.warning(f"the prepared data is not kept: {error}")

    def _folder(self) -> Path:
        """Its name is a hash of all that the preparation depends on."""
        digest = hashlib.sha256(f"{__version__} {_FORMAT} {type(self).__qualname__}".encode())
        ours = ("duplicates", "encoding", "numerical_features", "discretization")
        for key in (*dataset_arguments, *ours):
            digest.update(f"{key}={self.config[key]!r};".encode())
        for file in sorted(Path(self.dataset_path).glob(f"{glob.escape(self.dataset_name)}.*")):
            if file.is_file():
                found = file.stat()
                digest.update(f"{file.resolve()} {found.st_size} {found.st_mtime_ns};".encode())
        name = f"{self.dataset_name}-{digest.hexdigest()[:16]}"
        return Path(self.config["checkpoint_dir"]) / "mars" / "data" / name

    def _tables(self) -> dict[str, pd.DataFrame]:
        return {name: getattr(self, name) for name in self.feat_name_list}

    def _obstacle(self) -> str:
        """What flat columns cannot hold."""
        if self.config["additional_feat_suffix"]:
            return "additional_feat_suffix is set"
        if self.config["preload_weight"]:
            return "preload_weight is set"
        for table in self._tables().values():
            for name in table:
                first = table[name].iloc[0] if len(table) else None
                if name in self.config["numerical_features"] or isinstance(first, (str, tuple)):
                    return f"{name} is not a plain column"
        for field, tokens in self.field2id_token.items():
            if any("\n" in token for token in tokens):
                return f"a token of {field} has a line break"
        return ""

    def _keep(self, folder: Path) -> None:
        columns: dict[str, np.ndarray] = {}
        for table_name, table in self._tables().items():
            for name in table:
                values = table[name].to_numpy()
                if values.dtype == object:  # lists of numbers
                    columns[f"{table_name}/{name}/lengths"] = np.array([len(v) for v in values])
                    values = np.concatenate([*values, np.zeros(0, dtype=values[0].dtype)])
                columns[f"{table_name}/{name}"] = values
        places: dict[int, str] = {}  # fields of one vocabulary
        for field, tokens in self.field2id_token.items():
            if id(tokens) not in places:
                text = "\n".join(map(str, tokens))
                columns[f"tokens/{field}"] = np.frombuffer(text.encode(), dtype=np.uint8)
                places[id(tokens)] = field
        notes = {
            "tables": {name: list(table) for name, table in self._tables().items()},
            "vocabulary_of": {f: places[id(t)] for f, t in self.field2id_token.items()},
            "types": {field: kind.value for field, kind in self.field2type.items()},
            "sources": {field: source.value for field, source in self.field2source.items()},
            "lengths": self.field2seqlen,
            "buckets": self.field2bucketnum,
            "alias": {name: fields.tolist() for name, fields in self.alias.items()},
            "rest_fields": np.asarray(self._rest_fields).tolist(),
        }
        save_columns(folder, columns, notes)

    def _restore(self, folder: Path) -> None:
        columns, notes = load_columns(folder)
        tables = {}
        for table_name, names in notes["tables"].items():
            found = {}
            for name in names:
                values = columns[f"{table_name}/{name}"]
                lengths = columns.get(f"{table_name}/{name}/lengths")
                if lengths is not None:
                    lists = np.empty(len(lengths), dtype=object)
                    lists[:] = np.split(np.asarray(values), np.cumsum(lengths)[:-1])
                    values = lists
                found[name] = values
            tables[table_name] = pd.DataFrame(found, copy=False)
        vocabularies = {}
        for field in set(notes["vocabulary_of"].values()):
            tokens = np.array(columns[f"tokens/{field}"].tobytes().decode().split("\n"))
            vocabularies[field] = tokens, {token: i for i, token in enumerate(tokens)}
        self.field2type = {f: FeatureType(kind) for f, kind in notes["types"].items()}
        self.field2source = {f: FeatureSource(source) for f, source in notes["sources"].items()}
        self.field2seqlen, self.field2bucketnum = notes["lengths"], notes["buckets"]
        self.alias = {name: np.array(fields) for name, fields in notes["alias"].items()}
        self._rest_fields = np.array(notes["rest_fields"])
        for field, name in notes["vocabulary_of"].items():
            self.field2id_token[field], self.field2token_id[field] = vocabularies[name]
        self.user_feat = self.item_feat = None
        for name, table in tables.items():
            setattr(self, name, table)
        self.feat_name_list = list(tables)
