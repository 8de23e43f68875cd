"""What a notebook, a script and the command line call: searches, comparisons and reports.

`import optevo` has the names; each module here is imported when one of its names is first used.
"""
