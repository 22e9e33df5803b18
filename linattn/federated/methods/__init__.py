"""The methods of the toolkit, each a small `Method` record; one file per family."""
