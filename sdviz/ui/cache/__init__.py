"""All that the app keeps, and all that it does in the background.

`kept.KEPT` lists what is kept, `background.LANES` what runs in the background.
"""
