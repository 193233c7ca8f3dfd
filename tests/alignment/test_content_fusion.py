from __future__ import annotations

import torch
import torch.nn.functional as F

from recbole_mars.alignment import CollaborativeFusion, CrossModalFusion

MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_images_ask_the_texts() -> None:
    """Eq. 9 and 10 by hand for the last position, which sees all three."""
    fusion = CrossModalFusion(4).double()
    image, text = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    fused = fusion(image, text, MASK, "inclusive")

    attention = fusion.attention
    query, keys = attention.query(image[0, 2]), attention.key(text[0])
    weights = torch.softmax(keys @ query / 4**0.5, dim=0)
    attended = weights @ attention.value(text[0])
    torch.testing.assert_close(fused[0, 2], F.layer_norm(image[0, 2] + attended, (4,)))


def test_content_asks_the_behaviours_before_it() -> None:
    """Eq. 11: the second position sees the first behaviour only, the first position none."""
    content, ids = torch.randn(2, 3, 4), torch.randn(2, 3, 2)
    for residual in (True, False):
        fusion = CollaborativeFusion(4, 2, residual=residual)
        found = fusion(content, ids, MASK, "exclusive")
        one = fusion.attention.value(ids[0, 0])
        if residual:
            torch.testing.assert_close(found[0, 1], F.layer_norm(content[0, 1] + one, (4,)))
            torch.testing.assert_close(found[0, 0], F.layer_norm(content[0, 0], (4,)))
        else:
            torch.testing.assert_close(found[0, 1], one)
            assert torch.equal(found[:, 0], torch.zeros(2, 4))
