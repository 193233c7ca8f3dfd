"""What a catalogue says of its items: ids, columns, prompts, pictures."""

__all__: list[str] = []
