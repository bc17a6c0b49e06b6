"""From a labelled folder to the table of images: layout, workbooks, splits, the preprocess job."""
