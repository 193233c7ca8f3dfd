"""A DIN that RecBole has trained, as one of ours: the same logits, several times as fast."""

from __future__ import annotations

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
    mars_attention_hidden and mars_dnn_hidden their mlp_hidden_size, mars_activation: bn_silu,
    history_labels: False and mars_use_user_id: False. RecBole's DIN does not read user features,
    so there must be none of them in load_col either.

    Raises ValueError for a layer of another shape, or for side features that are neither token
    nor token_seq.
    """
    table = theirs.embedding_layer
    if table.num_feature_field["item"] != len(table.token_field_names["item"]) + len(
        table.token_seq_field_names["item"]
    ):
        raise ValueError("item features must be token or token_seq, got numbers in RecBole's DIN")
    if ours.din.users is not None:
        raise ValueError(
            "RecBole's DIN does not read user features; set mars_use_user_id: False and take "
            "user columns out of load_col"
        )
    items: Any = ours.din.items
    parts = table.token_embedding_table["item"].embedding.weight.split(
        table.token_field_dims["item"]
    )
    for name, weight in zip(table.token_field_names["item"], parts):
        is_id = name == theirs.ITEM_ID
        _copy(name, weight, (items.id_embedding if is_id else items.embeddings[name]).weight)
    for name, seq in zip(
        table.token_seq_field_names["item"], table.token_seq_embedding_table["item"]
    ):
        _copy(name, seq.weight, items.embeddings[name].weight)
    pairs: list[tuple[Any, Any]] = [
        (theirs.attention.att_mlp_layers.mlp_layers, ours.din.attention.layers[:-1]),
        ([theirs.attention.dense], ours.din.attention.layers[-1:]),
        (theirs.dnn_mlp_layers.mlp_layers, ours.din.dnn),
        ([theirs.dnn_predict_layers], [ours.din.score]),
    ]
    for source, destination in pairs:
        from_state = [t for layer in source for t in layer.state_dict().values()]
        to_state = [t for layer in destination for t in layer.state_dict().values()]
        if [t.shape for t in from_state] != [t.shape for t in to_state]:
            raise ValueError(
                "layers must have one shape, got "
                f"{[tuple(t.shape) for t in from_state]} in RecBole's DIN and "
                f"{[tuple(t.shape) for t in to_state]} in ours; set mars_attention_hidden and "
                "mars_dnn_hidden to its mlp_hidden_size, and mars_activation: bn_silu"
            )
        for there, here in zip(from_state, to_state):
            here.copy_(there)


def _copy(name: str, weight: Tensor, ours: Tensor) -> None:
    """Our tables end with the last category in use."""
    if weight.shape[1] != ours.shape[1] or len(weight) < len(ours):
        raise ValueError(
            f"the embedding of {name} is {tuple(weight.shape)} in RecBole's DIN and "
            f"{tuple(ours.shape)} in ours; use the same data set and embedding_size"
        )
    ours.copy_(weight[: len(ours)])
