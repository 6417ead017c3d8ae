"""`python -m tools.compare REV_A REV_B ...`: is one run better than another, and by how much?"""
