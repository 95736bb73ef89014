"""Methods that score by how well an image compresses."""
