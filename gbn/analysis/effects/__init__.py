"""Where a speed-up comes from: its links over the controls (decompose), updates times their cost (cost)."""
