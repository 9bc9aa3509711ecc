"""What is there: which runs a plan asks for, their records and curves."""
