"""DICOM files: tags, and stored values to grey pixels."""
