"""The pages. All code that imports streamlit is here, in app.py and in pages/."""
