"""The online service (MARS, 3.5.1): retrieval, augmentation and CTR in one process, over HTTP.

Needs the extra `serving`.
"""

from recbole_mars.serving.optional import import_optional

for _name in ("fastapi", "prometheus_client"):
    import_optional(_name)

from recbole_mars.serving.service.answers import Answer, Question, Recent  # noqa: E402
from recbole_mars.serving.service.app import create_app  # noqa: E402
from recbole_mars.serving.service.batching import Batcher, QueueFull, TooLate  # noqa: E402
from recbole_mars.serving.service.engine import Engine  # noqa: E402
from recbole_mars.serving.service.settings import ServiceSettings  # noqa: E402

__all__ = [
    "Answer",
    "Batcher",
    "Engine",
    "Question",
    "QueueFull",
    "Recent",
    "ServiceSettings",
    "TooLate",
    "create_app",
]
