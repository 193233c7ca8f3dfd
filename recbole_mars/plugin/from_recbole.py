"""A DIN that RecBole has trained, as one of ours: the same logits, several times as fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from recbole.model.sequential_recommender import DIN as RecBoleDIN
from torch import Tensor

from recbole_mars.plugin.models import MARS

__all__ = ["copy_recbole_din"]


@torch.no_grad()
def copy_recbole_din(theirs: RecBoleDIN, ours: MARS) -> None:
    """Copy the weights of RecBole's DIN, so that both give the same logits.

    theirs: of the same data set. ours: made with augmentation: none, embedding_size as theirs,
    mars_attention_hidden and mars_dnn_hidden their mlp_hidden_size, mars_activation: bn_silu, and
    history_labels, mars_use_user_id and mars_attention_softmax False. RecBole's DIN does not read
    user features, so there must be none of them in load_col either.

    Raises ValueError, and changes nothing, for a setting or a layer of another form, or for side
    features that are neither token nor token_seq.
    """
    settings = ours.din.settings
    for name, found, needed in (
        ("history_labels", settings.history_labels, False),
        ("mars_mark_borrowed", settings.mark_borrowed, False),
        ("mars_attention_softmax", settings.attention_softmax, False),
        ("mars_precision", settings.precision, "float32"),
    ):
        if found != needed:
            raise ValueError(f"{name} must be {needed} to score as RecBole's DIN does, got {found}")
    if ours.din.users is not None:
        raise ValueError(
            "RecBole's DIN does not read user features; set mars_use_user_id: False and take "
            "user columns out of load_col"
        )
    unit: Any = ours.din.attention
    pairs = [
        *_embeddings(theirs, ours),
        *_layers(theirs.attention.att_mlp_layers.mlp_layers, unit.layers[:-1]),
        *_layers([theirs.attention.dense], unit.layers[-1:]),
        *_layers(theirs.dnn_mlp_layers.mlp_layers, ours.din.dnn),
        *_layers([theirs.dnn_predict_layers], [ours.din.score]),
    ]
    for there, here in pairs:
        here.copy_(there)


def _embeddings(theirs: RecBoleDIN, ours: MARS) -> list[tuple[Tensor, Tensor]]:
    """Tables of item fields, theirs cut to ours, which end with the last category in use."""
    table: Any = theirs.embedding_layer
    items: Any = ours.din.items
    tokens, lists = table.token_field_names["item"], table.token_seq_field_names["item"]
    if table.num_feature_field["item"] != len(tokens) + len(lists):
        raise ValueError("item features must be token or token_seq, got numbers in RecBole's DIN")
    if not tokens or tokens[0] != theirs.ITEM_ID or {*tokens[1:], *lists} != {*items.embeddings}:
        raise ValueError(
            f"item fields must be the same, got {[*tokens, *lists]} in RecBole's DIN and "
            f"{[theirs.ITEM_ID, *items.embeddings]} in ours; use one load_col"
        )
    parts = table.token_embedding_table["item"].embedding.weight.split(
        table.token_field_dims["item"]
    )
    weights = [*parts, *(each.weight for each in table.token_seq_embedding_table["item"])]
    mine: list[Any] = [items.id_embedding, *(items.embeddings[n] for n in (*tokens[1:], *lists))]
    pairs = []
    for name, there, here in zip([*tokens, *lists], weights, (each.weight for each in mine)):
        if there.shape[1] != here.shape[1] or len(there) < len(here):
            raise ValueError(
                f"the embedding of {name} is {tuple(there.shape)} in RecBole's DIN and "
                f"{tuple(here.shape)} in ours; use the same data set and embedding_size"
            )
        pairs.append((there[: len(here)], here))
    return pairs


def _layers(theirs: Iterable[Any], ours: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
    """Parameters and statistics of layers that follow each other."""
    there = [tensor for layer in theirs for tensor in layer.state_dict().values()]
    here = [tensor for layer in ours for tensor in layer.state_dict().values()]
    if [t.shape for t in there] != [t.shape for t in here]:
        raise ValueError(
            f"layers must have one shape, got {[tuple(t.shape) for t in there]} in RecBole's DIN "
            f"and {[tuple(t.shape) for t in here]} in ours; set mars_attention_hidden and "
            "mars_dnn_hidden to its mlp_hidden_size, and mars_activation: bn_silu"
        )
    return list(zip(there, here))
