"""radio-vlm's model as a Hugging Face citizen: importing this package registers `radio_vlm` with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.errors import RadioVLMError, SampleError
from vlm.image_processing_radio_vlm import RadioVLMImageProcessor
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration
from vlm.processing_radio_vlm import RadioVLMProcessor

AutoConfig.register(RadioVLMConfig.model_type, RadioVLMConfig, exist_ok=True)
AutoModel.register(RadioVLMConfig, RadioVLMForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(RadioVLMConfig, RadioVLMForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(RadioVLMConfig, slow_image_processor_class=RadioVLMImageProcessor, exist_ok=True)
AutoProcessor.register(RadioVLMConfig, RadioVLMProcessor, exist_ok=True)

__all__ = [
    "RadioVLMConfig",
    "RadioVLMError",
    "RadioVLMForConditionalGeneration",
    "RadioVLMImageProcessor",
    "RadioVLMProcessor",
    "SampleError",
]
