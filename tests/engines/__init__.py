"""What runs work on many machines, and work of a size that a test cannot have, for real.

Scripts, not tests: each takes minutes, prints what it measured, and ends with 1 where something is
not as promised. slurm and ray need what requirements.txt does not bring; they say so.
"""
