"""Features that somebody else computed."""

__all__: list[str] = []
