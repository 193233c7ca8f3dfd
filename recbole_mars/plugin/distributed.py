"""Runs in several processes that compute what one process computes.

RecBole gives each process an equal part of the rows by repeating some, normalises and averages
gradients in each part for itself, and takes the mean of the processes' metrics, which for an AUC
is not the AUC. Here each batch of a run in one process is dealt out to the processes: every row
counts once, statistics and gradients are those of the whole batch, and metrics those of all rows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import recbole.config.configurator as configurator
import recbole.data.utils as data_module
import recbole.quick_start.quick_start as quick_start_module
import recbole.trainer.trainer as trainer_module
import torch
import torch.distributed as dist
from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.evaluator.collector import DataStruct
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from recbole_mars.plugin.batches import Batches, replace_lists

__all__ = [
    "DealtBatches",
    "GlobalBatchNorm",
    "first_process_first",
    "gather_rows",
    "run_recboles",
    "synchronise",
]

_run_recboles = quick_start_module.run_recboles
_taking_turns: list[bool] = []  # within first_process_first


def run_recboles(rank: int, *args: Any) -> None:
    """One process of a distributed run: RecBole's, with everything here in force.

    Being of this module, it makes a spawned process import recbole_mars.
    """
    # RecBole looks whether a folder exists, then makes it: two processes trip over each other.
    for name, module in list(sys.modules.items()):
        if name.startswith("recbole.") and hasattr(module, "ensure_dir"):
            vars(module)["ensure_dir"] = lambda folder: os.makedirs(folder, exist_ok=True)
    _compute_as_one()
    if not torch.cuda.is_available():
        _use_gloo()
        # The processes of a machine share its cores.
        torch.set_num_threads(max(1, torch.get_num_threads() // args[-1]["config_dict"]["nproc"]))
    _run_recboles(rank, *args)


@contextmanager
def first_process_first() -> Iterator[None]:
    """The run's first process goes through the block, then the others find what it left on disk.

    A block within a block is part of it. All processes have to come to the outer one.
    """
    if _taking_turns or not (dist.is_available() and dist.is_initialized()):
        yield
        return
    # The wait is as long as stage 1, more than a group allows by default; who dies is noticed.
    group = dist.new_group(timeout=timedelta(days=7), backend="gloo")
    first = dist.get_rank() == 0
    if not first:
        dist.barrier(group)
    _taking_turns.append(True)
    try:
        yield
    finally:
        _taking_turns.pop()
    if first:
        dist.barrier(group)


class DealtBatches:
    """The batches of a run in one process, each dealt out to the processes of this run.

    Process r has the r-th row of a batch and every W-th after it, W processes being there. One
    without a row sits the batch out in evaluation; in training, where all meet in every step, it
    takes the first row with a share of 0.

    loader: a RecBole data loader, whose order, generator and batch size this takes.
    """

    def __init__(self, loader: Any, rank: int, world_size: int) -> None:
        loader._init_batch_size_and_step()  # RecBole has divided the step
        self.batches, self.rank, self.world_size = Batches(loader), rank, world_size
        self.stands_in = not isinstance(loader, (FullSortEvalDataLoader, NegSampleEvalDataLoader))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            mine = batch[self.rank :: self.world_size]
            if mine or self.stands_in:
                yield mine or batch[:1]

    def __len__(self) -> int:
        """Batches of all processes together: RecBole asks whether there are any."""
        return len(self.batches)

    @property
    def shares(self) -> list[float]:
        """How much of each batch is this process's."""
        rows = range(self.batches.rows)
        size = self.batches.batch_size
        sizes = [len(rows[start : start + size]) for start in rows[::size]]
        return [len(range(self.rank, size, self.world_size)) / size for size in sizes]


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient.contiguous())


class GlobalBatchNorm(_BatchNorm):
    """Batch norm by the statistics of all processes' rows, however many each has.

    torch's SyncBatchNorm has no CPU version. While idle is set, this process's rows count for
    nothing. One row in all is normalised by the running statistics, as Dice does.

    x: (B, C, ...). Returns the same shape.
    """

    idle = False

    def _check_input_dim(self, x: Tensor) -> None:
        """Any shape will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # In 64 bit, where the mean of the squares less the square of the mean is accurate.
        columns = x.transpose(0, 1).flatten(1).double()
        rows = columns.new_full((1,), columns.shape[1])
        sums = torch.cat([rows, columns.sum(1), columns.square().sum(1)])
        count, total, squares = _Sum.apply(sums * float(not self.idle)).tensor_split(
            [1, 1 + len(columns)]
        )
        if count < 2:
            return torch.nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        if self.track_running_stats:
            self._track(mean.detach(), (variance * count / (count - 1)).detach())
        scale, shape = (variance + self.eps).rsqrt(), [1, -1] + [1] * (x.dim() - 2)
        normalised = (x - mean.to(x.dtype).view(shape)) * scale.to(x.dtype).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        tracked: Any = self  # torch declares what follows as Tensor or None
        tracked.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # torch's way to ask for the mean over all batches
            momentum = 1 / int(tracked.num_batches_tracked)
        tracked.running_mean.lerp_(mean.to(tracked.running_mean), momentum)
        tracked.running_var.lerp_(variance.to(tracked.running_var), momentum)


def synchronise(model: torch.nn.Module) -> torch.nn.Module:
    """Make every batch norm of the model a GlobalBatchNorm, in place; returns the model."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = GlobalBatchNorm  # it has the same parameters and buffers
    return model


def gather_rows(collected: DataStruct, names: Sequence[str]) -> None:
    """Put the rows that all processes collected in place of this process's own, on the CPU.

    Every process gets the same, in the order of the ranks; one that collected nothing too.
    """
    parts: list[dict[str, Tensor]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, {n: collected[n].cpu() for n in names if n in collected})
    for name in names:
        rows = [part[name] for part in parts if name in part]
        if rows:
            collected[name] = torch.cat(rows)


def _compute_as_one() -> None:
    """Put what is above in the places of RecBole's own, in a spawned process."""
    make_loader = AbstractDataLoader.__init__
    create_dataset = quick_start_module.create_dataset
    trainer = trainer_module.Trainer
    train_epoch, save_checkpoint = trainer._train_epoch, trainer._save_checkpoint

    def create_dataset_once(config: Config) -> Any:
        if not config["save_dataset"]:
            return create_dataset(config)
        if not os.path.isdir(config["data_path"]):  # RecBole's download waits for all processes
            raise ValueError(
                f"save_dataset with several processes needs the data in place, but there is no "
                f"{config['data_path']}; let one process download it first"
            )
        with first_process_first():
            return create_dataset(config)

    def make_dealing_loader(self: Any, config: Config, *args: Any, **options: Any) -> None:
        for key in ("save_dataloaders", "dataloaders_save_path"):
            if config[key]:
                raise ValueError(
                    f"{key} must not be set with several processes, got {config[key]!r}: a saved "
                    f"loader holds one process's rows; remove it, or take nproc 1"
                )
        make_loader(self, config, *args, **options)
        replace_lists(self, DealtBatches(self, dist.get_rank(), dist.get_world_size()))

    def train_epoch_together(
        self: Any, data: Any, epoch: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        batches = getattr(data, "batch_sampler", None)
        if not isinstance(batches, DealtBatches):  # knowledge graphs have two loaders
            return train_epoch(self, data, epoch, loss_func, show_progress)
        compute = loss_func or self.model.calculate_loss
        norms = [m for m in self.model.modules() if isinstance(m, GlobalBatchNorm)]
        shares = iter(batches.shares)

        def weighted(interaction: Any) -> Any:
            share = next(shares)
            for norm in norms:
                norm.idle = share == 0
            losses = compute(interaction)
            weight = share * batches.world_size  # torch takes the mean of the gradients
            if isinstance(losses, tuple):
                return tuple(loss * weight for loss in losses)
            return losses * weight

        mine = train_epoch(self, data, epoch, weighted, show_progress)
        total = torch.tensor(mine, dtype=torch.float64, device=self.device) / batches.world_size
        dist.all_reduce(total)
        return tuple(total.tolist()) if isinstance(mine, tuple) else total.item()

    def save_checkpoint_and_tell(self: Any, *args: Any, **options: Any) -> None:
        save_checkpoint(self, *args, **options)
        # The file is named after each process's clock, and the others wait until it is written.
        name = [self.saved_model_file]
        dist.broadcast_object_list(name)
        self.saved_model_file = name[0]

    for owner, attribute, replacement in (
        (quick_start_module, "create_dataset", create_dataset_once),
        (data_module, "load_split_dataloaders", lambda config: None),
        (AbstractDataLoader, "__init__", make_dealing_loader),
        (torch.nn.SyncBatchNorm, "convert_sync_batchnorm", synchronise),
        (trainer, "_train_epoch", train_epoch_together),
        (trainer, "_save_checkpoint", save_checkpoint_and_tell),
        (trainer, "_map_reduce", lambda self, result, num_sample: result),
    ):
        setattr(owner, attribute, replacement)


def _use_gloo() -> None:
    """What a CPU needs: RecBole asks for NCCL and a CUDA device a process."""
    start_group = dist.init_process_group
    initialise = configurator.Config._init_device
    parallel = torch.nn.parallel.DistributedDataParallel

    def start_gloo(backend: str | None = None, **options: Any) -> None:
        start_group(backend="gloo", **options)

    def initialise_on_cpu(self: Any) -> None:
        # RecBole wants a GPU listed for each process.
        self.final_config_dict["gpu_id"] = ",".join(map(str, range(self["nproc"])))
        initialise(self)
        self.final_config_dict["device"] = torch.device("cpu")

    for owner, name, replacement in (
        (dist, "init_process_group", start_gloo),
        (torch.cuda, "set_device", lambda device: None),
        (configurator.Config, "_init_device", initialise_on_cpu),
        (trainer_module, "DistributedDataParallel", lambda module, device_ids: parallel(module)),
    ):
        setattr(owner, name, replacement)
