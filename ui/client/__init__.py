"""What the page asks of the router: through the `openai` SDK, as any other client would."""
