"""The documentation's site: Sphinx over the pages of ``docs/`` and a reference generated from the program."""
