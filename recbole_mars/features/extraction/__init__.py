"""From inputs to stored vectors, by encoders that fit themselves or are pretrained."""

__all__: list[str] = []
