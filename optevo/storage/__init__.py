"""Where studies lie: databases, copies, files."""
