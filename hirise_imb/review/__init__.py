"""The review queue: which predicted landmarks a person should label next, and the page on which they are labelled."""

from hirise_imb.review.candidates import Candidate, choose_candidates
from hirise_imb.review.page import write_review
from hirise_imb.review.queue import Proposal, Review, build_review

__all__ = ["Candidate", "Proposal", "Review", "build_review", "choose_candidates", "write_review"]
