"""The RADIO family on top of transformers' native `RadioModel`: patches of any grids in, features out."""
