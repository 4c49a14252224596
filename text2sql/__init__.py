"""text2sql: fine-tune language models for text-to-SQL from composed configs, and measure how good they are."""

__version__ = "0.1.0"
