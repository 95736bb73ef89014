"""Starts sdviz with `streamlit run app.py`. The server takes `app`, and runs this file as the landing page."""

import streamlit as st

if __name__ == "__main__":
    from sdviz.ui.home import show_home
    from sdviz.ui.page import setup_page

    show_home(
        setup_page(
            "Outliers that keep the scene and lose the object",
            "A real image is noised to step **S** and denoised under the **wrong label**: "
            "the background is to stay, the object to turn into something odd.",
            makes_outliers=True,
        )
    )
else:
    from sdviz.ui.server import Start

    start = Start()
    app = st.App(__file__, lifespan=start.lifespan, middleware=start.middleware())
