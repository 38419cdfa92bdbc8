"""What people look at: pictures of cases, plots of scores, and the HTML page around them."""
