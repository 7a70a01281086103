"""What the words mean: numbers, regions, conditions, theorems and guarantees. Pure: no data, no training, no plots."""
