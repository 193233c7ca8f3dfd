"""Streaming training: the CTR network learns from interactions as they happen (MARS, 3.5.1)."""

from recbole_mars.serving.training.learner import Diverged
from recbole_mars.serving.training.settings import StreamSettings
from recbole_mars.serving.training.trainer import StreamTrainer

__all__ = ["Diverged", "StreamSettings", "StreamTrainer"]
