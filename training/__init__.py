"""Training in stages: recipes, data, optimizer groups and the entry scripts stage1.py ... stage4.py."""
