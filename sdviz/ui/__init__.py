"""Everything that imports streamlit, but for app.py and pages/."""
