"""Benchmarks: speed as ratios measured side by side, memory as the peak of a process of its own."""
