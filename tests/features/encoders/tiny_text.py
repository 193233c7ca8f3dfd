"""Tiny text models with random weights and tokenizers of their own, saved as real ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "A cowboy doll is threatened by a spaceman toy.",
    "Two kids find and play a magical board game",
    "Rain.",
    "The cowboy rides again, and again, and again, into the long red evening of the west",
    "Love in the rain",
    "A ship in space",
]
WIDTH = 16


def wordpiece(limit: int = 40) -> PreTrainedTokenizerFast:
    """As BERT's: [CLS] text [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    # Not trained: its trainer orders the vocabulary by chance.
    letters = sorted(set("".join(SENTENCES)) - {" "})
    words = ["cowboy", "rain", "##s", "space", "##ship", "the", "in"]
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    places = {word: place for place, word in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(places, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **names)


def byte_pairs(*ends: str, **names: Any) -> PreTrainedTokenizerFast:
    """Byte pairs in a frame: `ends` are what comes before and after a text, "" for nothing."""
    special = sorted({"<unk>", "<s>", "</s>", *names.values()})
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    before, after = (f"{end}:0 " if end else "" for end in ends)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before}$A:0 {after}".strip(),
        special_tokens=[(end, special.index(end)) for end in ends if end],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **names
    )


def save(
    folder: Path, tokenizer: PreTrainedTokenizerFast, model: str, config: Any, **options: Any
) -> Path:
    """Save a model of random weights, the same ones every time, and its tokenizer."""
    torch.manual_seed(0)
    network = getattr(transformers, model)(config)
    with torch.no_grad():
        for values in network.parameters():
            # transformers' small ones would make all texts alike
            if values.ndim > 1:
                values.normal_(0.0, 0.3)
    network.to(options.pop("dtype", torch.float32)).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_bert(folder: Path, limit: int = 40, **options: Any) -> Path:
    tokenizer = wordpiece(limit)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    return save(folder, tokenizer, "BertModel", config, **options)


def tiny_roberta(folder: Path, **options: Any) -> Path:
    tokenizer = wordpiece(limit=10**30)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=26,
        pad_token_id=tokenizer.pad_token_id,
    )
    return save(folder, tokenizer, "RobertaModel", config, **options)


def tiny_llama(folder: Path, **options: Any) -> Path:
    """With its head for the next token, and no padding token, as LLaMA is published."""
    tokenizer = byte_pairs("<s>", "")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=2048,
    )
    return save(folder, tokenizer, "LlamaForCausalLM", config, **options)


def tiny_t5(folder: Path, model: str = "T5ForConditionalGeneration", **options: Any) -> Path:
    tokenizer = byte_pairs("", "</s>", pad_token="<pad>")
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return save(folder, tokenizer, model, config, **options)


def tiny_bart(folder: Path, **options: Any) -> Path:
    tokenizer = byte_pairs("<s>", "</s>", pad_token="<pad>")
    config = transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
    )
    return save(folder, tokenizer, "BartForConditionalGeneration", config, **options)


VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}


def tiny_clip(folder: Path, **options: Any) -> Path:
    tokenizer = byte_pairs("<s>", "</s>", pad_token="</s>")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)
    return save(folder, tokenizer, "CLIPModel", config, **options)


def tiny_siglip(folder: Path, **options: Any) -> Path:
    tokenizer = byte_pairs("", "</s>", pad_token="</s>")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "projection_size": WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return save(folder, tokenizer, "SiglipModel", config, **options)


TINY: dict[str, Callable[..., Path]] = {
    "bert": tiny_bert,
    "roberta": tiny_roberta,
    "llama": tiny_llama,
    "t5": tiny_t5,
    "bart": tiny_bart,
    "clip": tiny_clip,
    "siglip": tiny_siglip,
}
