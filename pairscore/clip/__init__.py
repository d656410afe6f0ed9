"""CLIP: finding a model, and turning images and captions into embeddings.

Importing this imports neither torch nor transformers nor ONNX Runtime; loading a model imports what
that model runs with.
"""

from pairscore.clip.choice import Capabilities, Choice, available_cores, choose, probe
from pairscore.clip.folders import cache_folder, default_cache_dir
from pairscore.clip.model import ClipModel, load_model
from pairscore.clip.preprocessing import Preprocessing
from pairscore.clip.source import find_local
from pairscore.clip.tokenizer import Caption

__all__ = [
    "Capabilities",
    "Caption",
    "Choice",
    "ClipModel",
    "Preprocessing",
    "available_cores",
    "cache_folder",
    "choose",
    "default_cache_dir",
    "find_local",
    "load_model",
    "probe",
]
