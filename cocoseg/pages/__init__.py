"""What the pages share: the data's (inspect), the report's, and those of `cocoseg compare`.

frame   the frame of a page, how figures are written, colours; beside it are the templates
charts  charts, as data URIs

Uses `common`; a page lies with what it shows.
"""
