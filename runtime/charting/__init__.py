"""Charts in the style of reports: their colours, axes and files, and those of spectra."""
