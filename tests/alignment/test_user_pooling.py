from __future__ import annotations

import torch

from recbole_mars.alignment import pooled_user_embedding, running_user_embedding

EMBEDDINGS = torch.tensor([[[2.0], [4.0], [9.0], [7.0]], [[5.0], [6.0], [7.0], [8.0]]])
MASK = torch.tensor([[True, True, True, False], [False, False, False, False]])


def test_running_mean_of_hand_values() -> None:
    expected = torch.tensor([[0.0, 2.0, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(running_user_embedding(EMBEDDINGS, MASK)[..., 0], expected)


def test_pooled_mean_of_hand_values() -> None:
    assert torch.equal(pooled_user_embedding(EMBEDDINGS, MASK), torch.tensor([[5.0], [0.0]]))


def test_running_mean_equals_pooling_every_prefix() -> None:
    embeddings = torch.randn(3, 7, 2, dtype=torch.float64)
    mask = torch.rand(3, 7) < 0.6
    running = running_user_embedding(embeddings, mask)
    for t in range(7):
        prefix = pooled_user_embedding(embeddings[:, :t], mask[:, :t])
        torch.testing.assert_close(running[:, t], prefix)


def test_what_is_padded_is_never_read() -> None:
    spoiled = EMBEDDINGS.masked_fill(~MASK[..., None], float("nan"))
    for pool in (running_user_embedding, pooled_user_embedding):
        assert torch.equal(pool(spoiled, MASK), pool(EMBEDDINGS, MASK))


def test_an_empty_batch_of_positions() -> None:
    empty, mask = torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool)
    assert running_user_embedding(empty, mask).shape == (2, 0, 3)
    assert torch.equal(pooled_user_embedding(empty, mask), torch.zeros(2, 3))


def test_pooling_passes_gradcheck() -> None:
    embeddings = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    for pool in (running_user_embedding, pooled_user_embedding):
        assert torch.autograd.gradcheck(lambda e, pool=pool: pool(e, MASK), (embeddings,))
