"""The server: HTTP in, the champion's answers out, and a page to draw on."""
