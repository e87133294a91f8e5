"""The review queue: which predicted landmarks a person should label next, and the page on which they are labelled."""

from hirise_imb.review.candidates import Candidate, Pool, choose_candidates


__all__ = ["Candidate", "Pool", "choose_candidates"]
