"""The RADIO family on top of transformers' native `RadioModel`: patches of any grids in, features out."""

from transformers import AutoConfig, AutoModel

from encoders.errors import RadioCheckpointError
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_encoder import RadioEncoder
from encoders.radio_vision import RadioEncoderOutput, RadioVisionModel

AutoConfig.register("radio_encoder", RadioEncoderConfig, exist_ok=True)
AutoModel.register(RadioEncoderConfig, RadioEncoder, exist_ok=True)

__all__ = ["RadioCheckpointError", "RadioEncoder", "RadioEncoderConfig", "RadioEncoderOutput", "RadioVisionModel"]
