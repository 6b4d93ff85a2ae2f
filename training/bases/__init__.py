"""Two small bases that the demo trains from nothing before anything multimodal: a language model and a RADIO encoder.
Both end as ordinary Hugging Face checkpoints. Without them a tiny VLM learns nothing in the minutes a demo has.
"""
