"""Reading headers: recognise a file by its content, and read what its DICOM header says."""
