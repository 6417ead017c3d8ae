"""`python -m tools.judge [REV_A REV_B]`: which of two answers does another model prefer?"""
