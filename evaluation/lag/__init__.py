"""`python -m evaluation lag`: how near LAG comes to the right adapter, beside routers that choose per request."""
