"""What people touch: the command line and the web page. Both use only the public Python API."""
