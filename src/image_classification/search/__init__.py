"""Search of settings: each job of a sweep is a trial, whose values Optuna chooses."""
