"""What a user may ask for: one pydantic tree, presets in YAML, vocabularies, models. Imports nothing else of ours."""
