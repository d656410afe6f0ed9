"""A tiny CLIP that knows coloured shapes, and data to score: all runs without a network.

Everything here is made by scripts in this package: the pictures, the captions, the model.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
"""The trained model, in Hugging Face layout, for `CLIPModel.from_pretrained`."""
