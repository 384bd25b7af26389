"""How long things take before the first answer: install, build, boot, and adapters that come and go."""
