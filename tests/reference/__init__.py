"""Independent references: no code shared with the package."""
