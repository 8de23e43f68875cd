"""One run: a candidate trained on one task with one seed. Needs no study, and no Optuna."""
