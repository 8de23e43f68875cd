"""What pyproject.toml cannot say: the folder `studies/` is a package's data, and packages are found."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["optevo", "optevo.*"]), "optevo.studies"])
