"""Is the router right? Reports with figures, tables and plots, from data that the user brings (issue 8)."""
