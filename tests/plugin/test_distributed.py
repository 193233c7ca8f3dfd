"""Two processes compute what one computes: the pieces by hand, and whole runs side by side."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fresh_process import in_fresh_process
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.evaluator.collector import DataStruct
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.trainer import Trainer
from recbole.utils import get_trainer
from torch import nn
from torch.utils.data import DataLoader

from recbole_mars.ctr import Dice
from recbole_mars.plugin import distributed
from recbole_mars.plugin.distributed import DealtBatches, GlobalBatchNorm, gather_rows, synchronise

# -- batches -----------------------------------------------------------------------------------


def dealt(n, size, world_size, shuffle=False, kind=SimpleNamespace):
    """The batches of every process, for a loader of n rows and this batch size."""

    class Loader(kind):
        _dataset_kind = None

        def __init__(self):
            self.sample_size, self.step, self.shuffle = n, size, shuffle
            self.generator = torch.Generator().manual_seed(5)

        def _init_batch_size_and_step(self):
            """The step is that of one process."""

    return [DealtBatches(Loader(), rank, world_size) for rank in range(world_size)]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("n", "size", "world_size"), [(11, 4, 2), (9, 4, 2), (10, 5, 3), (3, 1, 2)]
)
def test_together_the_processes_have_the_batches_of_one(n, size, world_size, shuffle):
    generator = torch.Generator().manual_seed(5)
    alone = DataLoader(range(n), size, shuffle=shuffle, generator=generator, collate_fn=list)
    processes = [
        DataLoader(range(n), batch_sampler=batches, generator=batches.batches.loader.generator)
        for batches in dealt(n, size, world_size, shuffle)
    ]
    for _ in range(2):  # epochs
        parts = [[batch.tolist() for batch in loader] for loader in processes]
        shares = [loader.batch_sampler.shares for loader in processes]
        assert {len(part) for part in parts} == {len(alone)}
        for k, batch in enumerate(alone):
            mine = [part[k] for part, share in zip(parts, shares) if share[k] > 0]
            assert sorted(row for rows in mine for row in rows) == sorted(batch)
            assert [len(rows) / len(batch) for rows in mine] == [s[k] for s in shares if s[k] > 0]
            assert sum(share[k] for share in shares) == pytest.approx(1)


def test_who_has_no_row_stands_in_when_training_only():
    assert [list(batches) for batches in dealt(5, 4, 2)] == [[[0, 2], [4]], [[1, 3], [4]]]
    assert dealt(5, 4, 2)[1].shares == [0.5, 0]
    evaluated = dealt(5, 4, 2, kind=FullSortEvalDataLoader)
    assert [list(batches) for batches in evaluated] == [[[0, 2], [4]], [[1, 3]]]
    # RecBole skips an evaluation whose loader is empty, and all must meet there.
    assert len(dealt(1, 4, 2, kind=FullSortEvalDataLoader)[1]) == 1


# -- batch norm --------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    """One process: the sum over all is its own."""
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda x: None)


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5)])
@pytest.mark.parametrize("options", [{}, {"affine": False, "eps": 1e-8}, {"momentum": None}])
def test_batch_norm_of_one_process_is_torchs(alone, shape, options):
    torch.manual_seed(0)
    reference = nn.BatchNorm1d(3, **options)
    ours = synchronise(nn.Sequential(nn.BatchNorm1d(3, **options)))[0]
    assert type(ours) is GlobalBatchNorm
    for _ in range(2):
        x = (torch.randn(shape) * 3 + 100).requires_grad_()
        results = []
        for norm in (reference, ours):
            y = norm(x)
            gradients = torch.autograd.grad((y**3).sum(), [x, *norm.parameters()])
            results.append([y, *gradients, *norm.buffers()])
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(x), reference.eval()(x))


@pytest.mark.parametrize(("idle", "rows"), [(False, 7), (True, 5)])
def test_batch_norm_counts_the_rows_of_the_others(monkeypatch, idle, rows):
    """A process with 2 rows, or one standing in, beside one with 5."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    others = x[2:].double()
    sums = torch.cat([torch.tensor([5.0]), others.sum(0), others.square().sum(0)])
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda total: total.add_(sums))
    reference = nn.BatchNorm1d(3)
    norm = synchronise(nn.BatchNorm1d(3))
    norm.idle = idle
    counted = x[7 - rows :]
    expected = reference(counted)
    if idle:
        expected = (x[:2] - counted.mean(0)) / (counted.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x[:2]), expected[:2])
    torch.testing.assert_close(norm.running_var, reference.running_var)


def test_one_row_in_all_takes_the_running_statistics(alone):
    dice = synchronise(Dice(2)).train()
    dice(torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 8.0]]))
    x = torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(dice(x), dice.eval()(x))


# -- gathering ---------------------------------------------------------------------------------


def test_gathered_rows_are_those_of_all_and_of_who_has_none(monkeypatch):
    first, third = {"score": torch.tensor([0.1, 0.2])}, {"score": torch.tensor([0.3])}

    def gather(parts, mine):
        assert mine == {}
        parts[:] = [first, mine, third]

    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(distributed.dist, "all_gather_object", gather)
    collected = DataStruct()
    gather_rows(collected, ("score", "rank"))
    assert collected["score"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert "rank" not in collected


# -- whole runs --------------------------------------------------------------------------------

# A spawned process imports the script, so that each writes down how its training went.
SCRIPT = """
    import json, sys
    import recbole_mars
    from recbole.quick_start import run
    from recbole.trainer import Trainer

    fit = Trainer.fit

    def fit_and_tell(self, *args, **options):
        best = fit(self, *args, **options)
        with open(f"rank{self.config['local_rank']}.json", "w") as file:
            json.dump([list(self.train_loss_dict.values()), best], file, default=float)
        return best

    Trainer.fit = fit_and_tell
    if __name__ == "__main__":
        model, settings, port = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
        sys.argv = sys.argv[:1]
        result = run(model, "world", config_dict=settings, nproc=2, port=port)
        print(json.dumps(dict(result["test_result"]), default=float))
"""


def free_port():
    return str(20000 + os.getpid() % 20000)


def in_one_process(model, settings, monkeypatch):
    """Losses of the epochs, the best validation and the test result."""
    losses, fit = [], Trainer.fit

    def fit_and_tell(self, *args, **options):
        best = fit(self, *args, **options)
        losses.extend(self.train_loss_dict.values())
        return best

    monkeypatch.setattr(Trainer, "fit", fit_and_tell)
    result = run_recbole(model=model, dataset="world", config_dict=dict(settings))
    return losses, result["best_valid_result"], result["test_result"]


def check_two_against_one(model, settings, folder, monkeypatch):
    tested = in_fresh_process(SCRIPT, folder, model, json.dumps(settings), free_port())
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    losses, (_, validated) = ranks[0]
    expected = in_one_process(model, settings, monkeypatch)
    assert losses == pytest.approx(expected[0], rel=1e-5)
    assert validated == pytest.approx(dict(expected[1]), abs=1e-6)
    assert tested == pytest.approx(dict(expected[2]), abs=1e-6)
    return tested


def test_mars_learns_and_scores_the_same_in_two_processes(tiny, empty_cwd, monkeypatch):
    """Odd batches, the last of one row; Dice; stage 1 and retrieval made once."""
    tiny.update(
        min_history=0,
        eval_args={"split": {"RS": [0.7, 0.15, 0.15]}, "group_by": "user", "order": "TO"},
        metrics=["AUC", "LogLoss", "RMSE", "MAE", "UserAUC", "AUCLow", "LogLossHigh"],
        metric_decimal_place=9,
        train_batch_size=57,
        eval_batch_size=13,
        embedding_size=10,  # wide enough that no two scores differ by rounding only
        mars_dnn_hidden=[16],
        mars_attention_hidden=[16],
        learning_rate=0.01,
        epochs=3,
        save_dataset=True,
        keep_prepared=True,
    )
    tested = check_two_against_one("MARS", tiny, empty_cwd, monkeypatch)
    assert all(0 < value < 1 for value in tested.values())
    assert len(list(Path("saved/mars").glob("world-*/prefixes-*/prefixes.json"))) == 1
    assert len(list(Path("saved/mars/data").glob("world-*/contents.json"))) == 1
    assert Path("saved/world-CTRDataset.pth").is_file()
    # What two processes trained, one loads.
    checkpoint = min(Path("saved").glob("MARS-*.pth"), key=lambda path: path.stat().st_mtime)
    config, model, _, train, _, test = load_data_and_model(str(checkpoint))
    assert len(train._dataset) % 57 == 1
    assert len(test._dataset) % 2 == 1
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    found = trainer.evaluate(test, load_best_model=False)
    assert dict(found) == pytest.approx(tested, abs=1e-6)


def test_a_builtin_model_ranks_the_same_in_two_processes(tiny, empty_cwd, monkeypatch):
    tiny.update(
        history="all",
        train_neg_sample_args=None,
        loss_type="CE",
        metrics=["NDCG", "Recall", "MRR", "GAUC"],
        valid_metric="NDCG@10",
        metric_decimal_place=9,
        dropout_prob=0.0,
        hidden_size=8,
        train_batch_size=49,
        eval_batch_size=13,
        epochs=1,
    )
    tested = check_two_against_one("GRU4Rec", tiny, empty_cwd, monkeypatch)
    assert 0 < tested["ndcg@10"] < 1


def test_an_error_in_one_process_ends_the_run_with_its_message(tiny, empty_cwd):
    """The other waits for it in the exchange of gradients."""
    code = """
        import json, sys
        import recbole_mars
        import torch
        from recbole.quick_start import run

        loss = recbole_mars.MARS.calculate_loss

        def fail_in_the_second(self, interaction):
            if torch.distributed.get_rank() == 1:
                raise ValueError("the second process had enough")
            return loss(self, interaction)

        recbole_mars.MARS.calculate_loss = fail_in_the_second
        if __name__ == "__main__":
            port, settings = sys.argv.pop(), json.loads(sys.argv.pop())
            try:
                run("MARS", "world", config_dict=settings, nproc=2, port=port)
            except Exception as error:
                print(json.dumps(str(error)))
    """
    settings = json.dumps({**tiny, "augmentation": "none"})
    message = in_fresh_process(code, empty_cwd, settings, free_port())
    assert "Process 1" in message
    assert "ValueError: the second process had enough" in message
