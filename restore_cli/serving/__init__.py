"""A page to try it: pictures come from a browser, one after the other through one line."""
