"""Attacks on the suite: interruptions, full disks, damaged files, hostile data.

Each attack is a function that disturbs the suite once, with random numbers from a seed, and checks what the suite makes
of it. `make torture` tries each attack many times and writes the table of `docs/reliability.md`; `make test` tries each
of them a few times.
"""
