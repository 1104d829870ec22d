"""How sure a number is: intervals, comparisons, power, and what follows from them; docs/statistics.md says which is where.

scipy is imported inside functions: it takes a second, which commands that only print do not have to spare.
"""
