"""Geometries of published systems by name, so that they can be compared.

RADIO has patches of 16 px, so NVILA's scales (448, 896, 1344 px for patches of 14) become those with the same grids.
"""

GEOMETRIES: dict[str, dict] = {
    "nemotron-omni": {"mode": "dynamic", "min_num_patches": 1024, "max_num_patches": 13312},
    "nemotron-nano-v2-vl": {"mode": "tiles", "tile_size": 512, "max_tiles": 12, "aspect_rule": "closest"},
    "nemotron-nano-vl-8b": {"mode": "tiles", "tile_size": 512, "max_tiles": 12, "aspect_rule": "area_weighted"},
    "nvila": {"mode": "multi_scale", "scales": [512, 1024, 1536], "last_scale": "dynamic", "max_tiles": 12},
    "fixed-512": {"mode": "fixed", "size": [512, 512]},
}
