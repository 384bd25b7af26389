"""What the router adds to a request, beside other proxies, in front of an engine that answers at once."""
