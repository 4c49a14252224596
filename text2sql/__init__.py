"""Fine-tune language models for text-to-SQL from composed configs, and measure how good they are."""

import os

__version__ = "0.1.0"

# Read when torch is imported. Passes differ in size, and segments that cannot grow leave gigabytes of holes between them.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
