"""What the columns of a Table are for each kind, and how an object becomes their cells; one file a field."""
