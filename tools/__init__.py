import finetune  # noqa: F401  (sets up logging before any library is imported)
