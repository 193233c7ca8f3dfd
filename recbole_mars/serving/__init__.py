"""Deployment (MARS, section 3.5): what a trained model needs to be served and kept fresh."""

__all__: list[str] = []
