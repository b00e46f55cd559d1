"""What samplers may want to know of a block beyond its log density, each in one file."""
