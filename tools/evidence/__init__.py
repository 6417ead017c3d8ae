"""`python -m tools.evidence`: what was run, of what, under which licences, and proof of it."""
