"""What outlives the process: the HDF5 cache and the safetensors models."""
