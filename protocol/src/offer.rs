//! Which release a device should run, read from verified metadata.
