"""What others think of a target, by how they agree with the user so far."""

from recbole_mars.agreement.item_effects import (
    ItemEffects,
    content_means,
    earlier_sums,
    item_effects,
    others_sums,
)
from recbole_mars.agreement.item_factors import fit_item_factors
from recbole_mars.agreement.kernel import KernelParts, content_directions
from recbole_mars.agreement.process import fit_weights, one_step_ahead
from recbole_mars.agreement.table import (
    AGREEMENT_COLUMNS,
    Agreement,
    AgreementSettings,
    agree,
)

__all__ = [
    "AGREEMENT_COLUMNS",
    "Agreement",
    "AgreementSettings",
    "ItemEffects",
    "KernelParts",
    "agree",
    "content_directions",
    "content_means",
    "earlier_sums",
    "fit_item_factors",
    "fit_weights",
    "item_effects",
    "one_step_ahead",
    "others_sums",
]
