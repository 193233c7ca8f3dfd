"""Retrieval of high-active users and of what they can lend (MARS, section 3.4)."""

from recbole_mars.retrieval.candidates import Candidate, candidate_sequences
from recbole_mars.retrieval.cosine import unit_rows
from recbole_mars.retrieval.index import UserIndex, check_storage
from recbole_mars.retrieval.neighbours import DonorPool, find_donors

__all__ = [
    "Candidate",
    "DonorPool",
    "UserIndex",
    "candidate_sequences",
    "check_storage",
    "find_donors",
    "unit_rows",
]
