"""How a model is fitted: batches, schedules, precision, checkpoints."""
