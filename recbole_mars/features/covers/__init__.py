"""Pictures of items that have none."""

__all__: list[str] = []
