"""Why a network says what it says, as heatmaps over pictures: `attribution` computes them, `gallery` draws them.

python scripts/explain.py tiger.jpg --run best
"""

from experiments.explanation.attribution import gradcam, integrated_gradients, occlusion
from experiments.explanation.gallery import Explained, Subject, class_index, explain, mistakes, save, subjects

__all__ = [
    "Explained",
    "Subject",
    "class_index",
    "explain",
    "gradcam",
    "integrated_gradients",
    "mistakes",
    "occlusion",
    "save",
    "subjects",
]
