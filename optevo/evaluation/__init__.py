"""One trial: a candidate's runs, what is copied, raced and reported."""
