"""Who is alive: signs of life of workers, and trials whose worker is gone."""
