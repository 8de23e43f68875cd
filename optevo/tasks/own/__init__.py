"""A user's own data as a task, without code: folders of images, tables, texts."""
