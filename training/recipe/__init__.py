"""A training stage as data: sections with a docstring a field, read from YAML and `key=value` words."""

from training.recipe.adapter import Adapter
from training.recipe.checks import RecipeError
from training.recipe.data import Data
from training.recipe.distill import Distill
from training.recipe.modules import MODULE_NAMES, Module, Modules
from training.recipe.replay import Replay
from training.recipe.source import Source
from training.recipe.train import ZERO_CHOICES, Train
from training.recipe.watch import Watch
from training.recipe.whole import Recipe

__all__ = [
    "MODULE_NAMES",
    "ZERO_CHOICES",
    "Adapter",
    "Data",
    "Distill",
    "Module",
    "Modules",
    "Recipe",
    "RecipeError",
    "Replay",
    "Source",
    "Train",
    "Watch",
]
