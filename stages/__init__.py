import finetune  # noqa: F401  (sets up logging and memory before any library is imported)
