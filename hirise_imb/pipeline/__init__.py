"""Complete studies: running them, storing their finished runs, and rebuilding or comparing their reports.

`runner` imports TensorFlow; `rebuild` and `compare` work from the files of reports and import nothing heavy. For that
reason, this package imports none of its modules.
"""
