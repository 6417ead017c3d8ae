"""Functions of your own that params.yaml names: scores of answers, steps of preprocessing.

The stages that may call them depend on this folder: editing one runs those stages again.
"""
