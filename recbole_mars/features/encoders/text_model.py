"""Text vectors of a pretrained language model, from MiniLM to LLaMA."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from recbole_mars.features.encoders.base import PreparedBatch
from recbole_mars.features.encoders.device import pick_device, pick_dtype
from recbole_mars.features.encoders.model_folder import ModelFolder, fetch_model
from recbole_mars.features.encoders.pooling import POOLINGS
from recbole_mars.features.encoders.pretrained import check_large_extra
from recbole_mars.features.encoders.text_network import TextNetwork
from recbole_mars.features.encoders.text_plan import TextPlan, plan_text

__all__ = ["TextEncoder"]


class TextEncoder:
    """Encodes texts by a pretrained model: an encoder, T5's encoder, a decoder, CLIP's text side.

    model: a folder, or a name on the Hugging Face hub at `revision`; see `fetch_model`.
    pooling: one of `POOLINGS`; "auto" is what a sentence-transformers folder says, else a model's
    own for one of pictures and texts, the last token of a decoder, and the mean of others. A
    model whose card asks for the CLS token needs "cls".
    max_length: tokens of a text; beyond, it is cut and reported. None is the model's own limit,
    512 at most. normalize: to unit vectors; None is what a sentence-transformers folder says,
    else no. Its prompt, Dense and LayerNorm are always used.
    device: "auto", "cpu", "cuda:1"; device_map: spreads a large model instead, as in accelerate.
    dtype: "float32", "float16" or "bfloat16"; "auto" is the checkpoint's, on every machine.
    load_in_8bit: hold the weights in 8 bits, by bitsandbytes. trust_remote_code: run the Python
    code that a model brings.

    What can be wrong with a model or a device is said when it is first read or loaded, all as
    ValueError; so an encoder can be made on one machine and used on another.
    """

    name = "text_model"

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        pooling: str = "auto",
        max_length: int | None = None,
        normalize: bool | None = None,
        device: str = "auto",
        dtype: str = "auto",
        device_map: str | Mapping[str, Any] | None = None,
        load_in_8bit: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        if pooling not in ("auto", *POOLINGS):
            raise ValueError(f"pooling must be one of auto, {', '.join(POOLINGS)}, got {pooling!r}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be >= 1, got {max_length}; 128 suits titles")
        if device_map is not None and device != "auto":
            raise ValueError(
                f"device must be 'auto' with a device_map, which places the model, got {device!r}"
            )
        pick_dtype(dtype, None)
        self.model = model
        self.revision = revision
        self.pooling = pooling
        self.max_length = max_length
        self.normalize = normalize
        self.device = device
        self.dtype = dtype
        self.device_map = device_map
        self.load_in_8bit = load_in_8bit
        self.trust_remote_code = trust_remote_code
        self._lock = threading.RLock()
        self._source: tuple[ModelFolder, TextPlan] | None = None
        self._checksums: dict[str, str] | None = None
        self._network: TextNetwork | None = None

    def settings(self) -> dict[str, Any]:
        folder, plan = self._read()
        with self._lock:
            checksums = self._checksums = self._checksums or folder.checksums()
        # version: raise it when this package computes something else
        return {
            "version": 1,
            "files": dict(checksums),
            "pooling": "+".join(plan.pooling) or "model",
            "max_length": plan.tokenizer.max_length,
            "normalize": plan.normalizes,
            "dtype": str(plan.dtype).replace("torch.", ""),
            "load_in_8bit": self.load_in_8bit,
        }

    def provenance(self) -> dict[str, Any]:
        import transformers

        folder, plan = self._read()
        return {
            "model": folder.name,
            "revision": folder.revision,
            "kind": plan.kind,
            "prompt": plan.tokenizer.prompt,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }

    def load(self) -> None:
        """Load the model; a second call does nothing.

        Raises ValueError if the model, its weights, the device or a package is missing.
        """
        check_large_extra(self.device_map, self.load_in_8bit)
        folder, plan = self._read()
        with self._lock:
            if self._network is not None:
                return
            device = None if self.device_map is not None else pick_device(self.device)
            self._network = TextNetwork(
                folder,
                plan,
                device=device,
                device_map=self.device_map,
                load_in_8bit=self.load_in_8bit,
                trust_remote_code=self.trust_remote_code,
            )

    def lengths(self, inputs: Sequence[str]) -> list[int]:
        """Bytes of each text."""
        return [len(text.encode("utf-8", "replace")) for text in inputs]

    def prepare(self, inputs: Sequence[str]) -> PreparedBatch:
        """Tokenize texts; those that are not valid Unicode are broken."""
        _, plan = self._read()
        broken = {k: _broken(text) for k, text in enumerate(inputs) if _broken(text)}
        good = [k for k in range(len(inputs)) if k not in broken]
        if not good:
            return PreparedBatch(None, 0, broken)
        tokens = plan.tokenizer([inputs[k] for k in good])
        truncated = [good[k] for k in tokens.truncated]
        if self._network is not None and self._network.device.type == "cuda":
            tokens = tokens.pin_memory()  # so that the copy to the GPU need not wait
        return PreparedBatch(tokens, len(good), broken, truncated)

    def encode_batch(self, batch: PreparedBatch) -> np.ndarray:
        """Run the model: (batch.size, D) float32.

        Raises ValueError if vectors are not finite, as float16 makes them of some models.
        """
        self.load()
        assert self._network is not None
        if not batch.size:
            return self.encode_batch(self.prepare(["any"]))[:0]
        vectors: np.ndarray = self._network(batch.content).cpu().numpy()
        if not np.isfinite(vectors).all():
            _, plan = self._read()
            remedy = "set dtype to 'bfloat16' or 'float32'"
            if plan.dtype == torch.float32:
                remedy = "the model's weights are damaged; get its folder anew"
            raise ValueError(
                f"vectors of model {self.model!r} must be finite, in {plan.dtype} some are not; "
                f"{remedy}"
            )
        return vectors

    def _read(self) -> tuple[ModelFolder, TextPlan]:
        """The model's folder and what it says, read once."""
        with self._lock:
            if self._source is None:
                folder = fetch_model(
                    self.model, revision=self.revision, code=self.trust_remote_code
                )
                self._source = (
                    folder,
                    plan_text(
                        folder,
                        pooling=self.pooling,
                        max_length=self.max_length,
                        normalize=self.normalize,
                        dtype=self.dtype,
                        trust_remote_code=self.trust_remote_code,
                    ),
                )
            return self._source

    def __getstate__(self) -> dict[str, Any]:
        # To another process go the arguments only; it reads and loads for itself.
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(type(self)(**state)))


def _broken(text: str) -> str:
    """Why a text cannot be tokenized; empty if it can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"not valid Unicode: {error.reason} at character {error.start}"
    return ""
