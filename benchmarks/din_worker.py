"""One library's DIN in a process of its own: the other half of against_recbole.py.

Reads a JSON object a line from stdin and answers with one on stdout.
"""

import itertools
import json
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import psutil
import torch

HIDDEN = [256, 256, 256]  # RecBole's default, of both MLPs


def peak_rss() -> float:
    """Peak resident memory of this process in MB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def rss() -> float:
    return psutil.Process().memory_info().rss / 2**20


class Cut:
    """The first batches of a data loader; they differ from epoch to epoch."""

    def __init__(self, loader, batches):
        self.loader, self.batches = loader, batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        return itertools.islice(iter(self.loader), self.batches)

    def __getattr__(self, name):
        return getattr(self.loader, name)


class Worker:
    """A prepared data set, and models of it by variant."""

    def __init__(self, package, dataset, settings):
        self.package, self.dataset, self.settings = package, dataset, settings
        if package == "recbole_mars":
            import recbole_mars  # noqa: F401
        import recbole.quick_start  # noqa: F401

        self.models = {}
        imported = peak_rss()
        begin = time.perf_counter()
        self.config = self.make_config()
        self.prepare()
        self.facts = {
            "prepare_seconds": time.perf_counter() - begin,
            "imported_mb": imported,
            "prepared_mb": peak_rss(),
            "train_rows": len(self.loaders[0].dataset),
            "test_rows": len(self.loaders[2].dataset),
        }

    def make_config(self, **changes):
        from recbole.config import Config

        model = "DIN"
        settings = {**self.settings, **changes}
        if self.package == "recbole_mars":
            model = "MARS"
            settings |= {"augmentation": "none", "history_labels": False}
            settings |= {"mars_use_user_id": False, "mars_activation": "bn_silu"}
            settings.setdefault("mars_attention_hidden", HIDDEN)
            settings.setdefault("mars_dnn_hidden", HIDDEN)
        return Config(model, self.dataset, config_dict=settings)

    def prepare(self):
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import init_seed

        init_seed(self.config["seed"], True)
        self.loaders = data_preparation(self.config, create_dataset(self.config))

    def trainer(self, variant):
        if variant in self.models:
            return self.models[variant]
        from recbole.utils import get_model, get_trainer, init_seed

        sizes = {}
        if variant == "default sizes":
            sizes = {"mars_attention_hidden": [80, 40], "mars_dnn_hidden": [200, 80]}
            sizes["mars_activation"] = "dice"
        config = self.make_config(**sizes) if sizes else self.config
        init_seed(config["seed"], True)
        model = get_model(config["model"])(config, self.loaders[0]._dataset)
        if self.package == "recbole_mars" and not sizes:
            self.start_like_recbole(model)
        model = model.to(config["device"])
        if variant == "bfloat16":
            model.din.settings = replace(model.din.settings, precision="bfloat16")
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        trainer._saves_state = False
        trainer.eval_collector.data_collect(self.loaders[0])
        self.models[variant] = trainer
        return trainer

    def start_like_recbole(self, model):
        """RecBole's initial weights: from the same seed, both train the same network."""
        from recbole.config import Config
        from recbole.model.sequential_recommender import DIN
        from recbole.utils import init_seed

        from recbole_mars.plugin.from_recbole import copy_recbole_din

        config = Config("DIN", self.dataset, config_dict={**self.settings, "min_history": 1})
        init_seed(self.config["seed"], True)
        copy_recbole_din(DIN(config, self.loaders[0]._dataset), model)

    def train(self, variant, steps):
        trainer = self.trainer(variant)
        # RecBole switches anomaly detection on as it looks DIN up; as shipped, it stays.
        torch.autograd.set_detect_anomaly(variant == "as shipped")
        begin = time.perf_counter()
        loss = trainer._train_epoch(Cut(self.loaders[0], steps), 0)
        seconds = time.perf_counter() - begin
        rows = min(steps * self.config["train_batch_size"], self.facts["train_rows"])
        return {"rate": rows / seconds, "loss": loss / steps, "rss_mb": rss()}

    def evaluate(self, variant):
        trainer = self.trainer(variant)
        begin = time.perf_counter()
        result = trainer.evaluate(self.loaders[2], load_best_model=False)
        rate = self.facts["test_rows"] / (time.perf_counter() - begin)
        return {"rate": rate, "auc": float(result["auc"])}

    def auc(self, seed, variant, steps, epochs):
        """Test AUC after so many steps, or whole epochs, from the same seed."""
        self.settings["seed"] = seed
        self.config = self.make_config()
        self.prepare()
        self.models = {}
        if not epochs:
            loss = self.train(variant, steps)["loss"]
        for _ in range(epochs):
            loss = self.train(variant, len(self.loaders[0]))["loss"]
        return {"auc": self.evaluate(variant)["auc"], "loss": loss}

    def checkpoint(self, variant):
        trainer = self.trainer(variant)
        trainer._save_checkpoint(0, verbose=False)
        return {"mb": Path(trainer.saved_model_file).stat().st_size / 2**20}

    def pairs(self, batches=10):
        """Pairs of target and behaviour in a training batch: all places, real ones, distinct."""
        rows = []
        for batch in Cut(self.loaders[0], batches):
            history, length = batch["item_id_list"], batch["item_length"]
            real = torch.arange(history.shape[1]) < length.unsqueeze(1)
            target = batch["item_id"].repeat_interleave(length)
            rows.append([len(length), int(real.sum()), _distinct(target, history[real])])
        samples, real, distinct = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
        return {"samples": samples, "real": real, "distinct": distinct}

    def profile(self, variant, steps=4, shown=12):
        """Shares of a training step's time by operation, the largest first."""
        self.train(variant, 1)
        with torch.profiler.profile() as record:
            self.train(variant, steps)
        seconds = {e.key: e.self_cpu_time_total for e in record.key_averages()}
        total = sum(seconds.values())
        largest = sorted(seconds, key=seconds.get, reverse=True)[:shown]
        return {name: seconds[name] / total for name in largest}

    def loader_workers(self, count=2, batches=20):
        """Memory that each loading process has for itself after some batches, in MB."""
        config = self.make_config(worker=count)
        loader = type(self.loaders[0])(config, self.loaders[0]._dataset, None, shuffle=True)
        if self.package == "recbole_mars":
            from recbole_mars.plugin.batches import replace_lists

            replace_lists(loader)
        found = []
        for number, _ in enumerate(loader):
            if number == batches:
                children = psutil.Process().children()
                found = [child.memory_full_info().uss / 2**20 for child in children]
                break
        return {"own_mb": found}

    def memory(self):
        return {"peak_mb": peak_rss(), "rss_mb": rss()}


def _distinct(target, behaviour):
    return len(torch.unique(target * (int(behaviour.max()) + 1) + behaviour))


def main() -> None:
    warnings.filterwarnings("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    order = json.loads(sys.stdin.readline())
    sys.argv = sys.argv[:1]
    torch.set_num_threads(order.pop("threads"))
    worker = Worker(**order)
    print(json.dumps(worker.facts), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        reply = getattr(worker, order.pop("do"))(**order)
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
