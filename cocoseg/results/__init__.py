"""What people read and type (report, and the command `cocoseg`).

report   the whole run on one page
charts   line charts for the page
summary  the scores as a table, at the end of `make repro`
command  the command `cocoseg`

May use every other package; none uses it.
"""
