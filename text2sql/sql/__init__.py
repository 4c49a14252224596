"""SQL without models: open databases, run queries safely, compare results, grade hardness (stdlib and sqlglot only)."""
