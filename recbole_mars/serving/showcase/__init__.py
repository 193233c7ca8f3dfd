"""A page on which people see what the service does for a user; the main job's demo mounts it.

Needs the extra `serving`.
"""

from recbole_mars.serving.showcase.cards import Card, read_cards
from recbole_mars.serving.showcase.directory import Directory
from recbole_mars.serving.showcase.page import read_page
from recbole_mars.serving.showcase.routes import Showcase

__all__ = ["Card", "Directory", "Showcase", "read_cards", "read_page"]
