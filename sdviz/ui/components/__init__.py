"""Components that Streamlit lacks, each a `.py` file with its `.js` and `.css` beside it.

A component gets plain data and puts text into the page as text nodes, never as HTML.
"""
