"""The runs that a plan asks for, with their records and curves."""
