"""After the search: the best on fresh seeds, the winner on the test split, its ablation."""
