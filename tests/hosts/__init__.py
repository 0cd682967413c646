"""gradtx inside what people train with, and under the transformations of JAX."""
