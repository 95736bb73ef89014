"""Tables as Streamlit sends them to the browser."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa


def table_of(sent: bytes) -> pd.DataFrame:
    """The table of an element's Arrow bytes."""
    return pa.ipc.open_stream(sent).read_pandas()
