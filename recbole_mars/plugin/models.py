"""RecBole's view of our models: thin classes over the plain-torch networks."""

from __future__ import annotations

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_mars import ctr
from recbole_mars.alignment import AlignmentExport, export_embeddings
from recbole_mars.plugin.ctr_model import CTRModel, SequenceModel
from recbole_mars.plugin.dataset import RATE_FIELD, VIEW_PREFIXES, MultimodalDataset
from recbole_mars.plugin.settings import training_objective
from recbole_mars.plugin.stage_one import alignment_network

__all__ = [
    "BST",
    "DIMO",
    "DMAE",
    "LRD",
    "MARS",
    "AveragePooling",
    "FRNet",
    "GRU4RecCTR",
    "MARSAlign",
    "SimTier",
    "UniSRec",
]


class MARS(SequenceModel):
    """MARS, stage 2: DIN over histories that borrow from similar high-active users.

    Stage 1 (alignment) and retrieval run before its first epoch, see MARSTrainer. With
    augmentation: none it is our plain DIN; cl4srec, coserec and basrec add an objective to that
    one's training.
    """

    network: ctr.DIN

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        self.objective = training_objective(config)

    @property
    def din(self) -> ctr.DIN:
        """The network."""
        return self.network

    def logits(self, interaction: Interaction) -> Tensor:
        return self._score(interaction)[0]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        labels = interaction[self.label_field].float()
        logits, interest, target = self._score(interaction)
        loss = self.loss(logits, labels)
        # Without views in the epochs before an objective starts.
        if self.objective is None or VIEW_PREFIXES[0] + self.ITEM_SEQ not in interaction:
            return loss
        first, second = VIEW_PREFIXES
        batch = ctr.TrainingBatch(
            self.history(interaction),
            interaction[self.ITEM_ID],
            interaction[self.USER_ID],
            labels,
            (self.history(interaction, first), self.history(interaction, second)),
            (interaction[first + RATE_FIELD], interaction[second + RATE_FIELD]),
            self.context(interaction),
        )
        return loss + self.objective(self.din, batch, interest, target)

    def _score(self, interaction: Interaction) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B,), and interest and target vectors (B, D)."""
        history = self.history(interaction)
        interest, target = self.din.interest(history, interaction[self.ITEM_ID])
        user, context = interaction[self.USER_ID], self.context(interaction)
        return self.din.logits(interest, target, user, context), interest, target


class DMAE(SequenceModel):
    """DMAE: a DIN that also reads how alike target and behaviours are; see recbole_mars.ctr."""


class SimTier(SequenceModel):
    """SimTier: a DIN that also reads how many behaviours are how alike; see recbole_mars.ctr."""


class UniSRec(SequenceModel):
    """UniSRec: adapted features added to item ids, and a transformer; see recbole_mars.ctr."""


class LRD(SequenceModel):
    """LRD: a DIN with latent relations discovered by features; see recbole_mars.ctr."""


class DIMO(SequenceModel):
    """DIMO: a DIN of ids and one of features, disentangled; see recbole_mars.ctr."""

    network: ctr.DIMO

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        own = self.network.own
        rows = np.flatnonzero(dataset.held_in_training())
        companions = ctr.find_companions(dataset.log, rows, own.companions, own.window)
        self.network.vectors.hold(companions)


class AveragePooling(SequenceModel):
    """Average pooling: the mean of the history as interest; see recbole_mars.ctr.MeanInterest."""


class GRU4RecCTR(SequenceModel):
    """GRU4Rec as a CTR model: a GRU's last state as interest; see recbole_mars.ctr.GRUInterest."""


class BST(SequenceModel):
    """BST: a transformer over history and target; see recbole_mars.ctr.TransformerInterest."""


class FRNet(SequenceModel):
    """FRNet: a factorization machine over refined fields, no history; see recbole_mars.ctr."""


class MARSAlign(CTRModel):
    """MARS, stage 1, as a CTR model of its own (eq. 12): the alignment network's score.

    Trained causally, all targets of a user in one pass, by MARSAlignTrainer; what it learns is
    the artifact that MARS uses.
    """

    def __init__(self, config: Config, dataset: MultimodalDataset) -> None:
        super().__init__(config, dataset)
        self.network = alignment_network(config, self.n_items, dataset.item_features())

    def logits(self, interaction: Interaction) -> Tensor:
        """The target is put behind its history, and its position's logit taken."""
        history, target = interaction[self.ITEM_SEQ], interaction[self.ITEM_ID]
        length = interaction[self.ITEM_SEQ_LEN].unsqueeze(1)
        items = torch.cat([history, torch.zeros_like(history[:, :1])], dim=1)
        items = items.scatter(1, length, target.unsqueeze(1))
        mask = torch.arange(items.shape[1], device=items.device) <= length
        labels = self._labels(interaction)
        if labels is not None:
            labels = torch.cat([labels, torch.zeros_like(labels[:, :1])], dim=1)
        output = self.network(items, mask, labels)
        return output.logits.gather(1, length).squeeze(1)

    def export(self, dataset: MultimodalDataset) -> AlignmentExport:
        """Multimodal embeddings of items and users (MARS, eq. 11 and 13), for use elsewhere.

        item_embeddings (I, D) and item_seen (I,) go by internal item id; donor_users (H,) are all
        users with training behaviours, donor_embeddings (H, D) theirs. dataset.id2token tells
        the names of internal ids. dataset: any split that build() made.
        """
        return export_embeddings(
            self.network,
            dataset.log.behaviours(),
            np.zeros(0, dtype=np.int64),
            np.flatnonzero(dataset.log.training_counts()),
            max_length=self.max_seq_length,
            device=self.device,
            progress=False,
        )
