"""The page: a chat over the router that shows which model gave each answer, and why."""
