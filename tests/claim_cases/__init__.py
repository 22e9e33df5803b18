"""What is known of every claim: `CASES` lists it, the other files compute it by the naive twin."""
