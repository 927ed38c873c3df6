"""Numbers on pages, held to files of results: tables that are made, figures that are looked up."""
