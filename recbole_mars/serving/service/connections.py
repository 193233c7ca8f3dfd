"""Connections that have to say something: Uvicorn itself waits for ever.

It does so for a request's head, and for the rest of a body where the answer came before that.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["protocol_of"]


class _Impatient(H11Protocol):
    head_seconds: ClassVar[float]
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._reads_for_nothing():
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Bytes that are no whole head, or of no use, do not put the deadline off."""
        if self.conn.their_state is not h11.IDLE and not self._reads_for_nothing():
            self._rest()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.close)

    def _reads_for_nothing(self) -> bool:
        """Whether a body still comes that was answered already.

        Closing at once would lose the answer: a client that is sent a reset drops what it has.
        """
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def protocol_of(head_seconds: float) -> type[H11Protocol]:
    """A protocol for uvicorn.Config's `http`.

    It closes a connection on which a request's head has not come whole within head_seconds, of the
    connection or of the head's first byte, nor the rest of a body within head_seconds of its
    answer. h11, unlike httptools, also limits what a head may take.
    """
    return type("Impatient", (_Impatient,), {"head_seconds": head_seconds})
