//! Arrow schemas and deterministic Parquet.
