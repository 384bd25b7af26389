"""Reports: are choices right, and are adapters better than their base (issues 5, 7 and 8)."""
