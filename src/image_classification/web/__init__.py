"""The server: HTTP in, the champion's predictions out, and a page to draw on."""
