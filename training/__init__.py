"""From question and answer to a PEFT adapter on disk; the demo and a Mistral-7B run take the same path."""
