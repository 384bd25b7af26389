"""Is the choice right? Reports with figures, tables and plots: of the router (issue 8), and of LAG (issue 5)."""
