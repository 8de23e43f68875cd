"""What optuna-dashboard shows of a search: a note, charts, and the best trials with their files."""
