"""One file a family of language models; `llm.family` finds them."""
