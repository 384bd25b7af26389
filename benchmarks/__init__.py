"""What the system costs, measured on real processes; results as JSON with hardware, versions and command."""
