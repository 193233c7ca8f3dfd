"""What others think of a target, by how they agree with the user so far."""

from recbole_mars.agreement.click_counts import ClickCounts
from recbole_mars.agreement.click_factors import fit_click_factors
from recbole_mars.agreement.clicks import (
    CLICK_COLUMNS,
    ClickAgreement,
    ClickAgreementSettings,
    FittedClickAgreement,
    agree_on_clicks,
)
from recbole_mars.agreement.columns import AGREEMENT_COLUMNS, ColumnScale
from recbole_mars.agreement.fitted import NEW_USER_FOLD, FittedAgreement
from recbole_mars.agreement.item_effects import (
    ItemEffects,
    ItemTotals,
    content_means,
    earlier_sums,
    item_effects,
    others_sums,
)
from recbole_mars.agreement.item_factors import fit_item_factors
from recbole_mars.agreement.kernel import KernelParts, content_directions
from recbole_mars.agreement.own_past import OwnPast
from recbole_mars.agreement.process import condition, fit_weights, one_step_ahead, posterior
from recbole_mars.agreement.table import Agreement, AgreementSettings, agree

# By what they read.
AGREEMENTS: dict[str, type[FittedAgreement | FittedClickAgreement]] = {
    "opinions": FittedAgreement,
    "clicks": FittedClickAgreement,
}

__all__ = [
    "AGREEMENTS",
    "AGREEMENT_COLUMNS",
    "CLICK_COLUMNS",
    "NEW_USER_FOLD",
    "Agreement",
    "AgreementSettings",
    "ClickAgreement",
    "ClickAgreementSettings",
    "ClickCounts",
    "ColumnScale",
    "FittedAgreement",
    "FittedClickAgreement",
    "ItemEffects",
    "ItemTotals",
    "KernelParts",
    "OwnPast",
    "agree",
    "agree_on_clicks",
    "condition",
    "content_directions",
    "content_means",
    "earlier_sums",
    "fit_click_factors",
    "fit_item_factors",
    "fit_weights",
    "item_effects",
    "one_step_ahead",
    "others_sums",
    "posterior",
]
