"""Statements derived in `paper_notes.md`; C1, C2, ... are names of this project."""
