"""From texts to tokens."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_text import SENTENCES, byte_pairs, wordpiece
from transformers import PreTrainedTokenizer

from recbole_mars.features.encoders.text_tokens import TextTokenizer


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python: every letter is a token, after <s>."""

    def __init__(self, **kwargs) -> None:
        super().__init__(bos_token="<s>", pad_token="<pad>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return 128

    def get_vocab(self) -> dict[str, int]:
        return {chr(k): k for k in range(3, 128)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)

    def build_inputs_with_special_tokens(self, first, second=None):
        return [self.bos_token_id, *first]


def test_by_hand() -> None:
    tokenizer = wordpiece()
    tokens = TextTokenizer(tokenizer, max_length=4, vocabulary=500)(["rain", "in the rain", "in"])
    word = tokenizer.get_vocab()
    start, end = word["[CLS]"], word["[SEP]"]
    assert tokens.ids.tolist() == [
        [start, word["rain"], end, 0],
        [start, word["in"], word["the"], end],
        [start, word["in"], end, 0],
    ]
    assert tokens.mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert tokens.types.sum() == 0
    assert tokens.truncated == (1,)


def test_exactly_as_long_as_admitted_is_not_cut() -> None:
    text = "in the rain"
    for length, cut in ((4, (0,)), (5, ()), (6, ())):
        assert (
            TextTokenizer(wordpiece(), max_length=length, vocabulary=500)([text]).truncated == cut
        )


def test_padding_is_on_the_right_whatever_the_tokenizer_says() -> None:
    tokenizer = byte_pairs("<s>", "", pad_token="</s>")
    tokenizer.padding_side = "left"
    tokens = TextTokenizer(tokenizer, max_length=64, vocabulary=500)(SENTENCES)
    mask = tokens.mask.numpy()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert mask.sum(1).max() == mask.shape[1]
    assert (tokens.ids[tokens.mask == 0] == tokenizer.pad_token_id).all()


def test_the_end_that_is_cut_is_the_tokenizers_choice() -> None:
    tokenizer = byte_pairs("", "")
    whole = tokenizer(SENTENCES[3])["input_ids"]
    tokenizer.truncation_side = "left"
    tokens = TextTokenizer(tokenizer, max_length=5, vocabulary=500)([SENTENCES[3]])
    assert tokens.ids[0].tolist() == whole[-5:]


def test_padding_without_a_padding_token() -> None:
    tokenizer = byte_pairs("<s>", "")
    assert TextTokenizer(tokenizer, max_length=9, vocabulary=500).pad_id == tokenizer.eos_token_id
    # one that was added to the tokenizer alone
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    known = tokenizer.pad_token_id
    assert TextTokenizer(tokenizer, max_length=9, vocabulary=known).pad_id == tokenizer.eos_token_id


def test_padding_to_a_fixed_length_and_a_text_without_tokens() -> None:
    tokens = TextTokenizer(byte_pairs("", ""), max_length=9, pad_to=12, vocabulary=500)(["", "in"])
    assert tokens.ids.shape == (2, 12)
    assert tokens.mask[0].sum() == 0
    assert TextTokenizer(byte_pairs("", ""), max_length=9, vocabulary=500)([""]).ids.shape == (1, 1)


def test_prompt_and_case() -> None:
    plain = TextTokenizer(wordpiece(), max_length=30, vocabulary=500)
    dressed = TextTokenizer(
        wordpiece(), max_length=30, vocabulary=500, prompt="In the ", lower_case=True
    )
    assert dressed(["RAIN"]).ids.tolist() == plain(["in the rain"]).ids.tolist()


def test_a_tokenizer_in_python() -> None:
    assert not Letters().is_fast
    tokens = TextTokenizer(Letters(), max_length=4, vocabulary=500)(["ab", "abcde", "abc"])
    start = Letters().bos_token_id
    assert tokens.ids[1].tolist() == [start, *map(ord, "abc")]
    assert tokens.mask.sum(1).tolist() == [3, 4, 4]
    assert tokens.truncated == (1,)


@pytest.mark.parametrize("make", [wordpiece, Letters])
def test_threads_tokenize_alike(make) -> None:
    tokenizer = TextTokenizer(make(), max_length=12, vocabulary=500)
    batches = [SENTENCES[k % 6 :] + SENTENCES[: k % 4] for k in range(24)]
    expected = [tokenizer(batch) for batch in batches]
    barrier = threading.Barrier(8)

    def work(_: int) -> list:
        barrier.wait(30)
        return [tokenizer(batch) for _ in range(3) for batch in batches]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    for results in found:
        for tokens, hand in zip(results, expected * 3):
            assert tokens.truncated == hand.truncated
            assert tokens.ids.equal(hand.ids)
            assert tokens.mask.equal(hand.mask)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"max_length must be > 2, the tokens.*got 2; 128"):
        TextTokenizer(wordpiece(), max_length=2, vocabulary=500)
    with pytest.raises(ValueError, match=r"tokens must be < 10, what the model knows, got \d+"):
        TextTokenizer(wordpiece(), max_length=9, vocabulary=10)(SENTENCES)
