"""Measuring: suites of figures with 95 % intervals, judged where the truth is known."""
