"""What a headline is: clean articles, wishes, spelling. Knows no tokens and no HTTP."""
