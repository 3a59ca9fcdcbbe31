"""De-identified DICOM out of an archive: which objects leave, how each is cleaned and written, and what is stated."""
