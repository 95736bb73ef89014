"""Uses a bundle on any images: makes a folder of outliers, packs it into one file, scores images."""
