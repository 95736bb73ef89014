"""What folders, file names, columns and arrays of people's own sets mean."""
