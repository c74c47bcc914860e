"""Several models: results, leaderboard, statistical tests, verdict, error analysis."""
