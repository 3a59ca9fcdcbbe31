"""Reading of headers: what a file is, by its content, and what its DICOM header says."""
