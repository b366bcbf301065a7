"""From the evaluations of every fold to one result: mean, spread, pooled intervals, and the folds as an ensemble."""
