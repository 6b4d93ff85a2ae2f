"""A recipe folder run as one: its stages in order, what is finished and what is not, and what must not be forgotten.

The parts are plain data and functions; `radio-vlm train` (vlm/cli/train.py) runs the commands they name.
"""
