"""`python -m evaluation routing`: labelled texts against what the router would decide, and its calibration."""
