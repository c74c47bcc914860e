"""What every stage is built on: configuration, commands, errors, paths, files."""
