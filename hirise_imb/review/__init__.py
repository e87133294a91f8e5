"""The review queue: which predicted landmarks a person should label next, and what becomes of the labels."""
