"""Functions of your own that params.yaml names: scores of answers, steps of preprocessing.

Ready here: language.py and quality.py, for web text. The stages that may call them depend on this
folder: editing one runs those stages again.
"""
