"""The HTML report: a summary in numbers, figures, and a page that holds both."""
