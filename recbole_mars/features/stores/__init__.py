"""Vectors on disk: written whole, checked, quantised, reduced."""

__all__: list[str] = []
