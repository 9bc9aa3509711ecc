"""Speed-up tables and their sub-tables, as Markdown, LaTeX and CSV."""
