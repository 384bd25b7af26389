"""What LAG and the plugin's CPU wrapper cost, and where large libraries end."""
