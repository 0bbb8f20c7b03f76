"""What people read and type (inspect, report, and the command `cocoseg`).

inspection  the data on one page, before training: a package without PyTorch
report      the whole run on one page
compare     which of several revisions is better
runs        the runs that one compares, and what they find in the labels, as tables
revisions   what other revisions hold, read through DVC
pages       the frame that all pages share, and charts for them
summary     the scores as a table, at the end of `make repro`
command     the command `cocoseg`

May use every other package; none uses it.
"""
