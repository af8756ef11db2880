"""Keras models: ``model.py`` walks through one, ``layers.py`` and ``operations.py`` say what each layer becomes."""
