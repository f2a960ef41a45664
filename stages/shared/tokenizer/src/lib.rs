//! A model folder's tokenizer and its special ids.
