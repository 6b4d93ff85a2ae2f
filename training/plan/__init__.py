"""What a stage will need before it is run: memory by ZeRO stage, tokens, time. See `radio-vlm plan`."""
