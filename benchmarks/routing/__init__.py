"""What a decision costs and how often it is right: every classifier, and other routers that choose by content."""
