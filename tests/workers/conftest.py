"""What the tests of workers share."""

from study_folders import unbroken  # noqa: F401  a fixture
