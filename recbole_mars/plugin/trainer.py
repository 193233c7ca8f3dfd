"""Trainers: stage 1 before stage 2, and a run that a kill only delays."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from recbole.config import Config
from recbole.trainer import Trainer

from recbole_mars import __version__
from recbole_mars.plugin.batches import replace_lists
from recbole_mars.plugin.ctr_model import SequenceModel
from recbole_mars.plugin.distributed import first_process_first
from recbole_mars.plugin.models import MARSAlign
from recbole_mars.plugin.stage_one import align

__all__ = ["MARSAlignTrainer", "MARSTrainer"]

# Keys that do not change what a run computes: a resumed run may differ in them.
_IRRELEVANT = {
    "checkpoint_dir",
    "show_progress",
    "state",
    "gpu_id",
    "use_gpu",
    "worker",
    "log_wandb",
}


class _OurTrainer(Trainer):
    """RecBole's trainer, with activity groups known without fit()."""

    def __init__(self, config: Config, model: torch.nn.Module) -> None:
        # RecBole's SINE module switches anomaly detection on when any sequential model is looked
        # up; it costs a third of the speed and finds nothing that _check_nan does not.
        if torch.is_anomaly_enabled():
            torch.autograd.set_detect_anomaly(False)
        super().__init__(config, model)

    def evaluate(self, eval_data: Any, *args: Any, **options: Any) -> Any:
        if eval_data:
            self.eval_collector.learn_activity(eval_data._dataset)
        return super().evaluate(eval_data, *args, **options)

    def _valid_epoch(self, valid_data: Any, *args: Any, **options: Any) -> Any:
        score, result = super()._valid_epoch(valid_data, *args, **options)
        if isnan(score):  # as of UserAUC under leave-one-out: no epoch would ever be the best
            raise ValueError(
                f"valid_metric must be defined on the validation set, got nan for "
                f"{self.config['valid_metric']}; take AUC or LogLoss, or change eval_args"
            )
        return score, result


class MARSTrainer(_OurTrainer):
    """Runs stage 1 and retrieval unless finished artifacts fit, then trains stage 2.

    The state of stage 2 is saved before each epoch, with all random states, so that the same
    command continues a killed run and ends with the same result. Of a run in several processes it
    is not.
    """

    model: SequenceModel
    start_epoch: int

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[..., None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        train_data._dataset.prepare_augmentation()
        if self.config["single_spec"]:
            replace_lists(train_data)
        self._train_data = train_data
        self._state_file = self._name_state_file(train_data._dataset)
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        self._saves_state = saved and self.config["single_spec"]
        lock = FileLock(f"{self._state_file}.lock")
        if self._saves_state:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.logger.warning(
                    "the same run is going on in another process: this one keeps no state"
                )
                self._saves_state = False
        try:
            if self._saves_state:
                self._resume()
            result = super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
            if self._saves_state:
                self._state_file.unlink(missing_ok=True)
            return result
        finally:
            lock.release()

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **options: Any) -> Any:
        if self._saves_state and epoch_idx > 0:
            self._save_state(epoch_idx)
        return super()._train_epoch(train_data, epoch_idx, *args, **options)

    def _name_state_file(self, dataset: Any) -> Path:
        values = {k: v for k, v in self.config.final_config_dict.items() if k not in _IRRELEVANT}
        digest = hashlib.sha256(repr(sorted((k, str(v)) for k, v in values.items())).encode())
        digest.update(f"{__version__}{dataset.fingerprint()}".encode())
        return Path(self.checkpoint_dir) / "mars" / f"stage2-{digest.hexdigest()[:16]}.pt"

    def _save_state(self, epoch: int) -> None:
        state = {
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": {k: float(v) for k, v in (self.best_valid_result or {}).items()},
            "saved_model_file": self.saved_model_file,
            "train_loss": dict(self.train_loss_dict),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": _random_state(self._train_data.generator),
        }
        unfinished = self._state_file.with_suffix(f".{os.getpid()}.tmp")
        torch.save(state, unfinished)
        os.replace(unfinished, self._state_file)

    def _resume(self) -> None:
        if self.start_epoch > 0 or not self._state_file.is_file():
            return  # the user resumed by resume_checkpoint(), or there is nothing to continue
        try:
            state = torch.load(self._state_file, map_location=self.device, weights_only=True)
            best = Path(state["saved_model_file"])
            if not best.is_file():
                raise FileNotFoundError(f"its best checkpoint {best} is gone")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            self.logger.warning(f"{self._state_file} cannot be continued ({error}): starting anew")
            self._state_file.unlink()
            return
        self.start_epoch = state["epoch"]
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_valid_result = state["best_valid_result"] or None
        self.saved_model_file = state["saved_model_file"]
        self.train_loss_dict = state["train_loss"]
        _restore_random_state(state["random"], self._train_data.generator)
        self.logger.info(f"continuing at epoch {self.start_epoch} of an interrupted run")


class MARSAlignTrainer(_OurTrainer):
    """Trains stage 1, one pass a user, in the artifact that MARS will use."""

    model: MARSAlign

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[..., None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        dataset = train_data._dataset
        self.eval_collector.data_collect(train_data)
        features = dataset.item_features()
        with first_process_first():
            history = align(dataset, self.config, self.model.network, features)
        self.train_loss_dict = {i: record["loss"] for i, record in enumerate(history.epochs)}
        last = history.best_epoch - 1
        if valid_data:
            score, result = self._valid_epoch(valid_data, show_progress=show_progress)
            self.best_valid_score, self.best_valid_result = score, result
            if callback_fn:
                callback_fn(last, score)
        if saved:
            self._save_checkpoint(last, verbose=verbose)
        return self.best_valid_score, self.best_valid_result


def _random_state(generator: torch.Generator | None) -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        # RecBole takes the generator away from loaders that it saves (save_dataloaders).
        "loader": None if generator is None else generator.get_state(),
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), gauss_next],
    }


def _restore_random_state(state: dict[str, Any], generator: torch.Generator | None) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    if generator is not None and state["loader"] is not None:
        generator.set_state(state["loader"].cpu())
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
