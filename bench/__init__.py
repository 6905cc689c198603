"""What the platform adds to a function, as ratios to a floor that is measured in the same run."""
