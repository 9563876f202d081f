"""Laws of nature as pure JAX: arrays in, arrays out. Knows no file, no plot and no experiment."""
