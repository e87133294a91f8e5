"""Whole studies: running them, storing their finished runs, and rebuilding or comparing their reports."""
