"""The two sides of every claim by the naive twin, and by formulas written out."""
